"""Where campaign links are kept: one SQL table, SQLite or PostgreSQL.

Every change takes the next number of one counter and writes it into the row it touches, in one transaction, so
whoever knows the last number it has seen can ask for exactly what is new, deletions included.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from links.link import InvalidLinkError, Link, link_of

_BATCH: Final = 1_000
"""Rows a round trip when many links are written."""

_metadata = MetaData()

_TYPES: Final[dict[str, Any]] = {
    "id": BigInteger,
    "target_url": JSON,
    "attribution_window_fingerprint": Integer,
    "attribution_window_idfa": Integer,
    "user_id": BigInteger,
    "slug": String(64),
    "forward_query": Boolean,
    "store_referrer": Boolean,
    "schemes": JSON,
    "starts_at": String(40),  # RFC 3339 with its zone: the same text in every database
    "expires_at": String(40),
    "enabled": Boolean,
    "tags": JSON,
}

_links: Final = Table(
    "links",
    _metadata,
    *(
        Column(name, _TYPES.get(name, Text), primary_key=name == "id", autoincrement=False)
        for name in Link.__struct_fields__
    ),
    Column("total_clicks", BigInteger, nullable=False, default=0, server_default="0"),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("deleted", Boolean, nullable=False, default=False),
)
_revision: Final = Table(
    "links_revision",
    _metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
)
_FIRST_REVISION: Final = text("INSERT INTO links_revision (row, last) VALUES (1, 0) ON CONFLICT DO NOTHING")

_PREPARE_LOCK: Final = text("SELECT pg_advisory_xact_lock(4677001)")
"""PostgreSQL's IF NOT EXISTS is no protection against another process that creates the same table."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to the links since some revision."""

    links: list[Link]
    deleted: list[int]
    revision: int


class LinkStoreError(Exception):
    """The database cannot be used; the text says why."""


class LinkStore:
    """The links table of one database."""

    def __init__(self, database_url: str) -> None:
        self._engine = _engine(database_url)

    async def prepare(self) -> None:
        """Create the tables where they are missing; raises LinkStoreError."""
        try:
            async with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    await connection.execute(_PREPARE_LOCK)
                for table in _metadata.sorted_tables:
                    await connection.execute(CreateTable(table, if_not_exists=True))
                    for index in table.indexes:
                        await connection.execute(CreateIndex(index, if_not_exists=True))
                await connection.execute(_FIRST_REVISION)
        except (SQLAlchemyError, OSError) as error:
            raise LinkStoreError(f"the database of links cannot be used: {_first_line(error)}") from error

    async def changes_since(self, revision: int) -> Changes:
        """Give all changes after `revision` (0: every link there is); raises LinkStoreError."""
        wanted = select(_links).where(_links.c.revision > revision)
        if revision == 0:
            wanted = wanted.where(_links.c.deleted.is_(False))
        try:
            async with self._engine.connect() as connection:
                last = await connection.scalar(select(_revision.c.last)) or 0
                if last == revision:
                    return Changes([], [], revision)
                rows = (await connection.execute(wanted)).mappings().all()
        except (SQLAlchemyError, OSError) as error:
            raise LinkStoreError(f"the database of links cannot be read: {_first_line(error)}") from error
        return Changes(
            links=[_link(row) for row in rows if not row["deleted"]],
            deleted=[row["id"] for row in rows if row["deleted"]],
            revision=max([last, *(row["revision"] for row in rows)]),
        )

    async def save(self, links: Sequence[Link]) -> None:
        """Insert or replace links by id, all or none; raises InvalidLinkError for a slug in use."""
        try:
            async with self._engine.begin() as connection:
                revision = await _next_revision(connection)
                for start in range(0, len(links), _BATCH):
                    await _save(connection, links[start : start + _BATCH], revision)
        except (SQLAlchemyError, OSError) as error:
            raise LinkStoreError(f"the links cannot be saved: {_first_line(error)}") from error

    async def delete(self, link_ids: Iterable[int]) -> None:
        """Delete links by id; missing ones are fine."""
        try:
            async with self._engine.begin() as connection:
                revision = await _next_revision(connection)
                gone = update(_links).where(_links.c.id.in_(list(link_ids)))
                await connection.execute(gone.values(deleted=True, slug=None, revision=revision))
        except (SQLAlchemyError, OSError) as error:
            raise LinkStoreError(f"the links cannot be deleted: {_first_line(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


async def _next_revision(connection: AsyncConnection) -> int:
    """Take the next number; its row stays locked until the commit, so numbers are seen in order."""
    await connection.execute(update(_revision).values(last=_revision.c.last + 1))
    return int(await connection.scalar(select(_revision.c.last)) or 0)


async def _save(connection: AsyncConnection, links: Sequence[Link], revision: int) -> None:
    taken = select(_links.c.id, _links.c.slug).where(
        _links.c.slug.in_([link.slug for link in links if link.slug])
    )
    owner = {row.slug: row.id for row in await connection.execute(taken)}
    for link in links:
        if link.slug and owner.setdefault(link.slug, link.id) != link.id:
            raise InvalidLinkError("slug", f"`{link.slug}` is in use by link {owner[link.slug]}")
    known = select(_links.c.id).where(_links.c.id.in_([link.id for link in links]))
    there = set(await connection.scalars(known))
    rows = {link.id: {**msgspec.to_builtins(link), "revision": revision, "deleted": False} for link in links}
    if new := [row for link_id, row in rows.items() if link_id not in there]:
        await connection.execute(insert(_links), new)
    for link_id in there:
        await connection.execute(update(_links).where(_links.c.id == link_id).values(rows[link_id]))


def _link(row: Any) -> Link:
    return link_of({name: row[name] for name in Link.__struct_fields__})


def _engine(database_url: str) -> AsyncEngine:
    url = make_url(database_url.replace("postgres://", "postgresql://", 1))
    if url.get_backend_name() == "sqlite":
        if url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": 5})
        event.listen(engine.sync_engine, "connect", _write_ahead)
        return engine
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg"), pool_size=2, pool_pre_ping=True, connect_args={"timeout": 5}
    )


def _write_ahead(connection: Any, _record: Any) -> None:
    """Let readers and a writer in several processes work at the same time."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
