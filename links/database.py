"""The database behind DATABASE_URL: SQLite for one machine, PostgreSQL for many.

Every wait has a bound: 5 s for a connection, for SQLite's lock and for a place in the pool; 60 s for a statement,
which is what an index over a million links may take. A driver is imported when it is used: PostgreSQL's costs 5 MB.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import Executable, Table, event
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from process.lean import without

with without("sqlalchemy.ext.asyncio.session", "sqlalchemy.ext.asyncio.scoping"):  # they load the ORM
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

__all__ = ["AsyncConnection", "AsyncEngine", "LinkStoreError", "open_engine", "said", "upsert"]

_CONNECT_SECONDS: Final = 5
_STATEMENT_SECONDS: Final = 60


class LinkStoreError(Exception):
    """The database cannot be used; the text says why."""


def open_engine(database_url: str) -> AsyncEngine:
    """Give the engine of `sqlite:///path`, `postgres://…` or `postgresql://…`; raise LinkStoreError for others."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        url = URL.create("none")  # the text may hold a password, so it is not repeated
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return _sqlite(url)
    if url.drivername in {"postgres", "postgresql"}:
        return _postgres(database_url)
    raise LinkStoreError("DATABASE_URL is no sqlite:///path, postgres://… or postgresql://… URL")


@contextmanager
def said(what: str) -> Iterator[None]:
    """Turn whatever the database raises into a LinkStoreError: `what` it was that failed, and why."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise LinkStoreError(f"{what}: {_reason(error)}") from error


def _sqlite(url: URL) -> AsyncEngine:
    # A connection of its own for each question: a file that was restored or replaced is seen at the next one.
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        poolclass=NullPool,
        connect_args={"timeout": _CONNECT_SECONDS},
        json_serializer=_json,
    )
    event.listen(engine.sync_engine, "connect", _write_ahead)
    return engine


def _postgres(database_url: str) -> AsyncEngine:
    import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415

    # asyncpg reads the URL itself: it knows sslmode and the others as libpq does. It has no channel binding.
    dsn = re.sub(r"(?<=[?&])channel_binding=[^&]*&?", "", database_url).rstrip("?&")

    async def connect() -> Any:
        return await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS, command_timeout=_STATEMENT_SECONDS)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=2,  # one that reads every second, one that writes now and then
        max_overflow=0,
        pool_timeout=_CONNECT_SECONDS,
        pool_pre_ping=True,
        json_serializer=_json,
    )


def upsert(table: Table, columns: Sequence[str], dialect: Dialect) -> Executable:
    """Give an INSERT that replaces these columns where a row with the `id` is there already."""
    if dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]  # noqa: PLC0415
    new = insert(table)
    return new.on_conflict_do_update(
        index_elements=["id"], set_={name: new.excluded[name] for name in columns}
    )


def _write_ahead(connection: Any, _record: Any) -> None:
    """Let readers and a writer in several processes work at the same time."""
    connection.run_async(_into_write_ahead)


async def _into_write_ahead(connection: Any) -> None:
    from sqlite3 import SQLITE_BUSY, OperationalError  # noqa: PLC0415

    # Two that turn a new file at once both hold what the other waits for: SQLite refuses one of them at once,
    # without the timeout that it grants elsewhere.
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            async with connection.execute("PRAGMA journal_mode=WAL"):
                return
        except OperationalError as error:
            if error.sqlite_errorcode & 0xFF != SQLITE_BUSY or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.01)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _reason(error: Exception) -> str:
    origin: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        origin = error.orig.__cause__ or error.orig
    return str(origin).partition("\n")[0] or type(origin).__name__
