"""clickhouse: every click as a row of `link_clicks`, for analysts.

ClickHouse has no transaction over several tables or months, so this is effectively once: the position is asked of the
rows themselves, an insert that is repeated has the same token and is dropped, and what was cut in another way when it
was read again is merged by ReplacingMergeTree, and counted once by uniqExact(event_id) or FINAL.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition
from pydantic import SecretStr

from consumers.clickhouse_rows import burial_of, inserts_of, position_of, position_row, quoted
from consumers.clickhouse_server import ClickHouseServer
from consumers.sink import Batch, RefusedError, SinkAwayError, Span

NAME: Final = "clickhouse"

_POSITIONS: Final = """
SELECT kafka_topic, kafka_partition, max(next_offset), max(open_until), max(behind_rows) FROM
(
    SELECT kafka_topic, kafka_partition, next_offset, open_until, 0 AS behind_rows
    FROM link_clicks_positions WHERE kafka_cluster = {cluster}
    UNION ALL
    SELECT kafka_topic, kafka_partition, 0, 0, max(kafka_offset) + 1
    FROM link_clicks WHERE kafka_cluster = {cluster} GROUP BY kafka_topic, kafka_partition
)
GROUP BY kafka_topic, kafka_partition FORMAT JSONCompactEachRow
"""

_INSERT_POSITIONS: Final = "INSERT INTO link_clicks_positions FORMAT JSONEachRow"


class _Position(msgspec.Struct, frozen=True, array_like=True):
    """A row of the answer."""

    topic: str
    partition: int
    next_offset: int
    open_until: int
    behind_rows: int


_decode_position: Final = msgspec.json.Decoder(_Position, strict=False).decode  # 64 bits may be quoted


class ClickHouse:
    """The sink of `consumers run clickhouse`."""

    topics = ("clicks", "bots")
    rest_seconds = 1.0
    """ClickHouse likes few large inserts: a second makes a dozen at most, one a partition."""

    def __init__(self, url: SecretStr) -> None:
        self._server = ClickHouseServer(url)
        self._prepared = False

    async def positions(
        self, cluster_id: str, beginnings: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Read where each partition goes on; makes the tables at first."""
        try:
            if not self._prepared:
                await self._prepare()
            answer = await self._server.ask(_POSITIONS.format(cluster=quoted(cluster_id)))
        except RefusedError as error:  # these are no rows of anybody's
            raise SinkAwayError(str(error)) from error
        found = {
            TopicPartition(row.topic, row.partition): position_of(
                row.next_offset, row.open_until, row.behind_rows
            )
            for row in map(_decode_position, answer.splitlines())
        }
        return {partition: found.get(partition, beginning) for partition, beginning in beginnings.items()}

    async def write(self, batch: Batch) -> Sequence[tuple[Any, str]]:
        """Insert the clicks of a batch, partition by partition.

        What was inserted before something fails stays; whoever reads it again finds the position behind it.
        """
        cut = [(span, *inserts_of(batch.cluster_id, span)) for span in batch.spans]
        await self._note(
            batch.cluster_id, [(span, span.begin) for span, inserts, _ in cut if len(inserts) > 1]
        )
        for span, inserts, dead in cut:
            # Dead letters first: once there are rows behind them, nobody reads them again.
            buried = [burial_of(batch.cluster_id, span, dead, datetime.now(UTC))] if dead else []
            for insert in (*buried, *inserts):
                await self._server.insert(insert.sql, insert.rows)
        await self._note(batch.cluster_id, [(span, span.end) for span in batch.spans])
        return [letter for _, _, dead in cut for letter in dead]

    async def bury(self, batch: Batch, reason: str) -> None:
        """Keep a record in `link_clicks_dead`."""
        for span in batch.spans:
            if span.records:
                dead = [(record, reason) for record in span.records]
                insert = burial_of(batch.cluster_id, span, dead, datetime.now(UTC))
                await self._server.insert(insert.sql, insert.rows)
        await self._note(batch.cluster_id, [(span, span.end) for span in batch.spans])

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def _note(self, cluster_id: str, positions: Sequence[tuple[Span, int]]) -> None:
        rows = [position_row(cluster_id, span, next_offset) for span, next_offset in positions]
        if rows:
            await self._server.insert(_INSERT_POSITIONS, rows)

    async def _prepare(self) -> None:
        statements = files("consumers").joinpath("clickhouse.sql").read_text("utf-8").split(";\n")
        for statement in filter(str.strip, statements):
            await self._server.ask(statement)
        self._prepared = True
