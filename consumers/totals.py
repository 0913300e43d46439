"""totals: clicks by link, owner, day, country, platform and referrer, people counted once a day, referrals as rows.

All that a batch adds is one commit with the positions: it is there once, whatever is killed, repeated or reassigned.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.counts import counts_of
from consumers.migrate import migrate
from consumers.positions import bury, move, positions
from consumers.sink import Batch, RefusedError, SinkAwayError
from consumers.totals_rows import PRUNED_AT_ONCE, add, prune
from links.database import LinkStoreError, open_engine, said
from links.store import LinkStore

NAME: Final = "totals"

_ROWS_FAULT: Final = ("22", "23")
"""Classes of SQLSTATE that blame the data: data exception, integrity constraint violation."""

_PRUNE_SECONDS: Final = 3600.0

_NOT_IDLE: Final = text("SET LOCAL idle_in_transaction_session_timeout = '10s'")
"""A member that vanishes in mid-commit, with its machine or its network, holds its partitions no longer than this."""


class Totals:
    """The sink of `consumers run totals`, in the database of links."""

    topics = ("clicks", "referrals", "bots")
    rest_seconds = 0.0

    def __init__(self, database_url: str, *, visitor_days: int) -> None:
        self._database_url = database_url
        self._engine = open_engine(database_url)
        self._visitor_days = visitor_days
        self._prepared = False
        self._prune_at = 0.0

    async def positions(
        self, cluster_id: str, beginnings: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Read where each partition goes on; makes the tables at first."""
        with _said("the positions of totals cannot be read"):
            if not self._prepared:
                await self._prepare()
            async with self._commit() as connection:
                return await positions(connection, NAME, cluster_id, beginnings)

    async def write(self, batch: Batch) -> Sequence[tuple[Any, str]]:
        """Add what the records say, in one commit with the positions."""
        counts = counts_of(record for span in batch.spans for record in span.records)
        with _said("the totals cannot be written"):
            async with self._commit() as connection:
                await move(connection, NAME, batch)
                await bury(connection, NAME, batch.cluster_id, counts.dead)
                await add(connection, counts)
        await self._prune_now_and_then()
        return counts.dead

    async def bury(self, batch: Batch, reason: str) -> None:
        """Keep a record as a dead letter, in one commit with its position."""
        dead = [(record, reason) for span in batch.spans for record in span.records]
        with _said("a dead letter cannot be written"):
            async with self._commit() as connection:
                await move(connection, NAME, batch)
                await bury(connection, NAME, batch.cluster_id, dead)

    async def prune(self) -> int:
        """Forget visitors of days of links that saw no click for so long; gives how many such days there were."""
        before = datetime.now(UTC).date() - timedelta(days=self._visitor_days)
        with _said("visitors of totals cannot be pruned"):
            async with self._commit() as connection:
                return await prune(connection, before)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _commit(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(_NOT_IDLE)
            yield connection

    async def _prepare(self) -> None:
        links = LinkStore(self._database_url)
        try:
            await links.prepare()
        finally:
            await links.close()
        await migrate(self._engine)
        self._prepared = True

    async def _prune_now_and_then(self) -> None:
        """Prune once an hour, and between two batches each as long as there is a backlog of it."""
        if time.monotonic() >= self._prune_at and await self.prune() < PRUNED_AT_ONCE:
            self._prune_at = time.monotonic() + _PRUNE_SECONDS


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn what the database raises into RefusedError where it blames the rows, else into SinkAwayError."""
    try:
        with said(what):
            yield
    except LinkStoreError as error:
        raise (RefusedError if _blames_the_rows(error.__cause__) else SinkAwayError)(str(error)) from error


def _blames_the_rows(error: BaseException | None) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    return state.startswith(_ROWS_FAULT)
