"""Bringing the tables of consumers to what this release needs, once, however many begin together.

As `links.migrate`, with a version table and a lock of its own: the two can be upgraded one without the other.
"""

from typing import TYPE_CHECKING, Final

from sqlalchemy import column, inspect, select, table, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

if TYPE_CHECKING:
    from alembic.config import Config

STEPS: Final = ("0001", "0002", "0003")
"""The steps of `consumers/migrations/versions`, in order; a test compares."""

VERSION_TABLE: Final = "consumers_version"

_LOCK: Final = text("SELECT pg_advisory_xact_lock(4677002)")
"""PostgreSQL's IF NOT EXISTS is no protection against another process that creates the same table."""


async def migrate(engine: AsyncEngine) -> None:
    """Go through the steps that are missing, all or none of them; one cheap question where there are none."""
    async with engine.connect() as connection:
        if _is_current(await connection.run_sync(_version)):
            return
    async with engine.begin() as connection:
        await _lock(connection)
        if not _is_current(await connection.run_sync(_version)):
            await connection.run_sync(_upgrade)


def _is_current(version: str | None) -> bool:
    """Tell whether there is nothing to do; steps of a newer release are additive."""
    return version is not None and version not in STEPS[:-1]


async def _lock(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK)
    else:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
    return version


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 (0.1 s and 11 MB that no other start should pay)

    command.upgrade(_config(connection), STEPS[-1])


def _config(connection: Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 (the same)

    config = Config()
    config.set_main_option("script_location", "consumers:migrations")
    config.attributes["connection"] = connection
    return config
