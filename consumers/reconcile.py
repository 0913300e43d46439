"""reconcile: who of Kafka, archive, ClickHouse and SQL has which events of a range of time, and who lacks which."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import assert_never

from pydantic import SecretStr

from consumers.archive_positions import FOLDER
from consumers.archive_range import ArchiveRange
from consumers.archive_store import ArchiveStore
from consumers.event_ids import EventIds
from consumers.identity import Range, Seen, Side, seen
from consumers.kafka_range import OnProgress, kafka_records
from consumers.settings import ConsumersSettings
from consumers.stored_ids import clickhouse_ids, has_referrals, sql_ids
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import topics_of

NAMES = {
    Side.KAFKA: "Kafka",
    Side.ARCHIVE: "archive",
    Side.CLICKHOUSE: "ClickHouse",
    Side.SQL: "SQL",
}


class NotConfiguredError(Exception):
    """A side was asked for that cannot be read; the sentence says why."""


class Reconciliation:
    """Reads sides into event ids."""

    def __init__(self, kafka: KafkastoreSettings, settings: ConsumersSettings, when: Range) -> None:
        self._kafka = kafka
        self._settings = settings
        self._when = when
        self.damaged: list[str] = []
        """Files of the archive that cannot be read to their end."""

    async def sides(self, wanted: Sequence[Side]) -> list[Side]:
        """Give the sides that are configured, or those that are wanted. Raises as `read`, and NotConfiguredError."""
        cures = {
            Side.ARCHIVE: None
            if await ArchiveStore(self._settings.archive_url).folders(FOLDER)
            else "no `consumers run archive` has written to ARCHIVE_URL",
            Side.CLICKHOUSE: None if self._settings.clickhouse_url else "set CLICKHOUSE_URL",
            Side.SQL: None
            if await has_referrals(self._settings.database_url)
            else "no `consumers run totals` has worked on DATABASE_URL",
        }
        for side in wanted:
            if cure := cures.get(side):
                raise NotConfiguredError(f"{NAMES[side]} cannot be compared: {cure}")
        return [side for side in Side if (side in wanted if wanted else not cures.get(side))]

    async def read(self, side: Side, ids: EventIds, on_progress: OnProgress) -> None:
        """Read what a side has. Raises SinkAwayError, PublishError, KafkaError, LinkStoreError."""
        async for events in self._events(side, on_progress):
            await ids.add(side, events)

    def _events(self, side: Side, on_progress: OnProgress) -> AsyncIterator[list[Seen]]:
        prefix, topics = self._kafka.kafka_prefix, topics_of(self._kafka)
        match side:
            case Side.KAFKA:
                return _seen(prefix, lambda: kafka_records(self._kafka, topics, self._when, on_progress))
            case Side.ARCHIVE:
                archive = ArchiveRange(
                    ArchiveStore(self._settings.archive_url),
                    [prefix + topic for topic in topics],
                    self._when,
                )
                self.damaged = archive.damaged
                return _seen(prefix, lambda: archive.records(on_progress))
            case Side.CLICKHOUSE:
                return clickhouse_ids(_set(self._settings.clickhouse_url), prefix, self._when, on_progress)
            case Side.SQL:
                return sql_ids(self._settings.database_url, self._when, on_progress)
            case _:
                assert_never(side)


async def _seen(
    prefix: str, records: Callable[[], AsyncIterator[Sequence[object]]]
) -> AsyncIterator[list[Seen]]:
    async for some in records():
        yield [seen(record, prefix) for record in some]


def _set(url: SecretStr | None) -> SecretStr:
    if url is None:
        raise NotConfiguredError("this side has no URL")
    return url
