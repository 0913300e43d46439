"""Bringing tables to what this release needs, once, however many processes begin together.

Every start asks one cheap question; alembic is only imported when the answer is not the newest step. The steps
run in one transaction under a lock of the whole database, so the second process finds them done.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import column, func, inspect, select, table
from sqlalchemy.engine import Connection

from links.database import AsyncConnection, AsyncEngine

if TYPE_CHECKING:
    from alembic.config import Config


@dataclass(frozen=True, slots=True)
class Steps:
    """What the tables of one room went through; rooms that share a database are upgraded one without the other."""

    names: tuple[str, ...]
    """The steps in `folder`, in order; a test compares."""
    version_table: str
    """A table of the room's own: others in the same database may use alembic too."""
    folder: str
    """Where the steps are, as `package:folder`."""
    lock: int
    """PostgreSQL's IF NOT EXISTS is no protection against another process that creates the same table."""

    async def version(self, engine: AsyncEngine) -> str | None:
        """Tell at which step the tables are; None: before the first one."""
        async with engine.connect() as connection:
            return await connection.run_sync(self._version)

    def are_done(self, version: str | None) -> bool:
        """Tell whether there is nothing to do.

        A step this release does not know was made by a newer one, that runs beside it or did: steps are additive,
        so it works on, and a roll-back needs none of the database.
        """
        return version is not None and version not in self.names[:-1]

    async def go(self, engine: AsyncEngine) -> None:
        """Go through the steps that are missing, all or none of them; one cheap question where there are none."""
        if self.are_done(await self.version(engine)):
            return
        async with engine.begin() as connection:
            await self._lock(connection)
            if not self.are_done(await connection.run_sync(self._version)):
                await connection.run_sync(self._upgrade)

    async def _lock(self, connection: AsyncConnection) -> None:
        if connection.dialect.name == "postgresql":
            await connection.execute(select(func.pg_advisory_xact_lock(self.lock)))
        else:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")

    def _version(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(self.version_table):
            return None
        found: str | None = connection.scalar(
            select(column("version_num")).select_from(table(self.version_table))
        )
        return found

    def _upgrade(self, connection: Connection) -> None:
        from alembic import command  # noqa: PLC0415 (0.1 s and 11 MB that no other start should pay)

        command.upgrade(self._config(connection), self.names[-1])

    def _config(self, connection: Connection) -> "Config":
        from alembic.config import Config  # noqa: PLC0415 (the same)

        config = Config()
        config.set_main_option("script_location", self.folder)
        config.attributes["connection"] = connection
        return config


LINK_STEPS: Final = Steps(("0001", "0002"), "links_version", "links:migrations", 4677001)
