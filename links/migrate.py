"""Bringing the tables of links to what this release needs, once, however many processes begin together.

Every start asks one cheap question; alembic is only imported when the answer is not the newest step. The steps
run in one transaction under a lock of the whole database of links, so the second process finds them done.
"""

from typing import TYPE_CHECKING, Final

from sqlalchemy import column, inspect, select, table, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

if TYPE_CHECKING:
    from alembic.config import Config

STEPS: Final = ("0001", "0002")
"""The steps of `links/migrations/versions`, in order; a test compares."""

VERSION_TABLE: Final = "links_version"
"""A table of our own: others in the same database may use alembic too."""

_LOCK: Final = text("SELECT pg_advisory_xact_lock(4677001)")
"""PostgreSQL's IF NOT EXISTS is no protection against another process that creates the same table."""


async def version_of(engine: AsyncEngine) -> str | None:
    """Tell at which step the tables are; None: before the first one."""
    async with engine.connect() as connection:
        return await connection.run_sync(_version)


def is_current(version: str | None) -> bool:
    """Tell whether there is nothing to do.

    A step this release does not know was made by a newer one, that runs beside it or did: steps are additive, so
    it works on, and a roll-back needs none of the database.
    """
    return version is not None and version not in STEPS[:-1]


async def migrate(engine: AsyncEngine) -> None:
    """Go through the steps that are missing, all or none of them."""
    async with engine.begin() as connection:
        await _lock(connection)
        if not is_current(await connection.run_sync(_version)):
            await connection.run_sync(_upgrade)


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
    config.set_main_option("script_location", "links:migrations")
    config.attributes["connection"] = connection
    return config
