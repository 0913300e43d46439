"""The database of links as consumers write to it: one commit at a time, and the loop's own errors."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.migrate import CONSUMER_STEPS
from consumers.sink import RefusedError, SinkAwayError
from links.database import LinkStoreError, open_engine, said
from links.store import LinkStore

_ROWS_FAULT: Final = ("22", "23")
"""Classes of SQLSTATE that blame the data: data exception, integrity constraint violation."""

_NOT_IDLE: Final = text("SET LOCAL idle_in_transaction_session_timeout = '10s'")
"""A member that vanishes in mid-commit, with its machine or its network, holds its partitions no longer than this."""


class Database:
    """The database of DATABASE_URL; raises LinkStoreError for what is no such URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.engine = open_engine(url)
        self._prepared = False

    async def prepare(self) -> None:
        """Make the tables that are missing, once; raises SinkAwayError."""
        if self._prepared:
            return
        links = LinkStore(self._url)
        try:
            with _said("the tables cannot be made"):
                await links.prepare()
                await CONSUMER_STEPS.go(self.engine)
        finally:
            await links.close()
        self._prepared = True

    @asynccontextmanager
    async def commit(self, otherwise: str) -> AsyncIterator[AsyncConnection]:
        """Do what the block does in one commit; raises SinkAwayError or RefusedError that say `otherwise` and why."""
        with _said(otherwise):
            async with self.engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.execute(_NOT_IDLE)
                yield connection

    async def close(self) -> None:
        """Close the connections."""
        await self.engine.dispose()


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
