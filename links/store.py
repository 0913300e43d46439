"""Where campaign links are kept: one SQL table, SQLite or PostgreSQL.

Every change takes the next number of one counter and writes it into the row it touches, in one transaction, so
whoever knows the last number it has seen can ask for exactly what is new, deletions included. Taking the number
locks the counter until the commit: changes happen one after the other, and what one reads no other moves.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, func, insert, or_, select, tuple_, update

from links.database import AsyncConnection, LinkStoreError, open_engine, said, upsert
from links.link import LARGEST_ID, Link, assigned, link_of, record_of
from links.migrate import LINK_STEPS
from links.plan import Plan, batches, plan_of
from links.rows import BEGINNING, COLUMNS, Changes, Position, changes_of
from links.schema import LINKS, REVISION

__all__ = ["FIRST_PAGE", "PAGE", "LinkStore", "LinkStoreError"]

PAGE: Final = 500
"""Links a question when many are read while visitors are served: 5 ms of the event loop."""

FIRST_PAGE: Final = 1_000
"""Links a question at the first load, when nobody waits yet: 3 MB at a time."""


class LinkStore:
    """The links of one database. Its methods raise LinkStoreError when that cannot be used."""

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url)

    async def version(self) -> str | None:
        """Tell at which step of the migrations the tables are: one cheap question. None: there are none."""
        if self._engine.dialect.name == "sqlite":
            with said("the folder of the links' database cannot be made"):
                Path(str(self._engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
        with said("the database of links cannot be used"):
            return await LINK_STEPS.version(self._engine)

    async def is_prepared(self) -> bool:
        """Tell whether the tables are as this release needs them."""
        return LINK_STEPS.are_done(await self.version())

    async def prepare(self) -> None:
        """Create the tables, or bring them to what this release needs."""
        if not await self.is_prepared():
            with said("the tables of links cannot be made"):
                await LINK_STEPS.go(self._engine)

    async def last_revision(self) -> int | None:
        """Give the number of the last change; None when the counter is gone: somebody emptied the table."""
        with said("the database of links cannot be read"):
            async with self._engine.connect() as connection:
                return await _last(connection)

    async def page(self, after: Position, most: int = PAGE) -> tuple[Changes, Position | None]:
        """Give the next changes after a position and the position they reach; None when there are no more.

        Rows that change in the meantime move behind all positions, so they may be seen twice and are never missed.
        """
        wanted = (
            select(*COLUMNS)
            .where(tuple_(LINKS.c.revision, LINKS.c.id) > tuple_(after.revision, after.id))
            .order_by(LINKS.c.revision, LINKS.c.id)
            .limit(most)
        )
        with said("the database of links cannot be read"):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(wanted)).all()
        if len(rows) < most:
            return changes_of(rows), None
        return changes_of(rows), Position(rows[-1].revision, rows[-1].id)

    async def pages(self, after: Position) -> AsyncIterator[Changes]:
        """Give all changes after a position, a page at a time."""
        position: Position | None = after
        while position is not None:
            changes, position = await self.page(position)
            yield changes

    async def changes_since(self, revision: int) -> Changes:
        """Give all changes after `revision` at once (0: every link there is)."""
        all_changes = Changes(revision=await self.last_revision() or 0)
        links: dict[int, Link] = {}
        deleted: set[int] = set()
        async for changes in self.pages(Position(revision + 1, -1) if revision else BEGINNING):
            for link_id in changes.deleted:
                links.pop(link_id, None)
                deleted.add(link_id)
            for link in changes.links:
                links[link.id] = link
                deleted.discard(link.id)
            all_changes.unreadable += changes.unreadable
        all_changes.links = list(links.values())
        all_changes.deleted = sorted(deleted) if revision else []
        return all_changes

    async def find(self, name: str) -> Link | None:
        """Find a link by its number or its slug; digits are a number first."""
        wanted: ColumnElement[bool] = LINKS.c.slug == name
        if name.isascii() and name.isdigit() and len(name) <= len(str(LARGEST_ID)):
            wanted = or_(LINKS.c.id == int(name), wanted)
        with said("the database of links cannot be read"):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(select(*COLUMNS).where(wanted))).all()
        found = changes_of(rows).links
        return next((link for link in found if str(link.id) == name), found[0] if found else None)

    async def plan(self, links: Sequence[Link]) -> Plan:
        """Tell what `save` would come to, and save nothing."""
        with said("the database of links cannot be read"):
            async with self._engine.connect() as connection:
                return await plan_of(connection, links)

    async def save(
        self,
        links: Sequence[Link],
        *,
        replace: bool = True,
        on_progress: Callable[[int], None] = lambda _saved: None,
    ) -> list[Link]:
        """Insert or replace links by id, all or none; give them as they are kept.

        An UNNUMBERED one replaces the link that has its slug, else it gets the next number. Raises InvalidLinkError
        for a slug in use and, without `replace`, for a link that is there already.
        """
        async with self._change("the links cannot be saved") as (connection, revision):
            plan = await plan_of(connection, links, replace=replace)
            for problem in plan.problems.values():
                raise problem
            for batch in batches(plan.links):
                await _write(connection, batch, revision)
                on_progress(len(batch))
        return plan.links

    async def assign(self, record: dict[str, Any]) -> Link:
        """Assign the keys of a record to the link with its id; others keep their value. Raises InvalidLinkError.

        A link that is not there yet is made.
        """
        return await self.change(link_of({"id": record.get("id")}).id, lambda old: assigned(old, record))

    async def change(self, link_id: int, new: Callable[[Link | None], Link]) -> Link:
        """Make of a link, None if it is not there, what `new` gives; raises InvalidLinkError, as `new` may."""
        async with self._change("the link cannot be saved") as (connection, revision):
            rows = (await connection.execute(select(*COLUMNS).where(LINKS.c.id == link_id))).all()
            link = new(next(iter(changes_of(rows).links), None))
            for problem in (await plan_of(connection, [link])).problems.values():
                raise problem
            await _write(connection, [link], revision)
        return link

    async def delete(self, link_ids: Iterable[int]) -> None:
        """Delete links by id; missing ones are fine."""
        async with self._change("the links cannot be deleted") as (connection, revision):
            for batch in batches(link_ids):
                gone = update(LINKS).where(LINKS.c.id.in_(batch), LINKS.c.deleted.is_(False))
                await connection.execute(gone.values(deleted=True, slug=None, revision=revision))

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _change(self, what_fails: str) -> AsyncIterator[tuple[AsyncConnection, int]]:
        with said(what_fails):
            async with self._engine.begin() as connection:
                yield connection, await _next_revision(connection)


async def _last(connection: AsyncConnection) -> int | None:
    last: int | None = await connection.scalar(select(REVISION.c.last))
    return last


async def _next_revision(connection: AsyncConnection) -> int:
    """Take the next number; its row stays locked until the commit, so numbers are seen in order."""
    taken = await connection.execute(update(REVISION).values(last=REVISION.c.last + 1))
    if not taken.rowcount:  # somebody emptied that table: go on behind whatever the links have
        used = await connection.scalar(select(func.max(LINKS.c.revision))) or 0
        await connection.execute(insert(REVISION).values(row=1, last=used + 1))
    return await _last(connection) or 1


async def _write(connection: AsyncConnection, links: Sequence[Link], revision: int) -> None:
    rows = [{**record_of(link), "revision": revision, "deleted": False} for link in links]
    replaced = [name for name in rows[0] if name != "id"]  # and not the clicks, which others count
    await connection.execute(upsert(LINKS, replaced, connection.dialect), rows)
