"""totals: clicks by link, owner, day, country, platform and referrer, people counted once a day, referrals as rows.

All that a batch adds is one commit with the positions: it is there once, whatever is killed, repeated or reassigned.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiokafka import TopicPartition

from consumers.counts import counts_of
from consumers.database import Database
from consumers.positions import bury, move, positions
from consumers.sink import Batch
from consumers.totals_rows import PRUNED_AT_ONCE, add, prune

NAME: Final = "totals"

_PRUNE_SECONDS: Final = 3600.0


class Totals:
    """The sink of `consumers run totals`, in the database of links."""

    topics = ("clicks", "referrals", "bots")
    rest_seconds = 0.0

    def __init__(self, database_url: str, *, visitor_days: int) -> None:
        self._database = Database(database_url)
        self._visitor_days = visitor_days
        self._prune_at = 0.0

    async def positions(
        self, cluster_id: str, beginnings: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Read where each partition goes on; makes the tables at first."""
        await self._database.prepare()
        async with self._database.commit("the positions of totals cannot be read") as connection:
            return await positions(connection, NAME, cluster_id, beginnings)

    async def write(self, batch: Batch) -> Sequence[tuple[Any, str]]:
        """Add what the records say, in one commit with the positions."""
        counts = counts_of(record for span in batch.spans for record in span.records)
        async with self._database.commit("the totals cannot be written") as connection:
            await move(connection, NAME, batch)
            await bury(connection, NAME, batch.cluster_id, counts.dead)
            await add(connection, counts)
        await self._prune_now_and_then()
        return counts.dead

    async def bury(self, batch: Batch, reason: str) -> None:
        """Keep a record as a dead letter, in one commit with its position."""
        dead = [(record, reason) for span in batch.spans for record in span.records]
        async with self._database.commit("a dead letter cannot be written") as connection:
            await move(connection, NAME, batch)
            await bury(connection, NAME, batch.cluster_id, dead)

    async def prune(self) -> int:
        """Forget visitors of days of links that saw no click for so long; gives how many such days there were."""
        before = datetime.now(UTC).date() - timedelta(days=self._visitor_days)
        async with self._database.commit("visitors of totals cannot be pruned") as connection:
            return await prune(connection, before)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def _prune_now_and_then(self) -> None:
        """Prune once an hour, and between two batches each as long as there is a backlog of it."""
        if time.monotonic() >= self._prune_at and await self.prune() < PRUNED_AT_ONCE:
            self._prune_at = time.monotonic() + _PRUNE_SECONDS
