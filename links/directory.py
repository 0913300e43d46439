"""How every process sees the links: all in memory, refreshed from the database every second.

So an unknown id or slug costs the database nothing, and neither does a known one: a redirect never waits for it.
A database that is down, slow or empty never takes a link away that was once loaded: only a deletion does, or a
database that went back to an older state.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from links.database import LinkStoreError
from links.link import Link
from links.rows import BEGINNING, Changes, Position
from links.store import FIRST_PAGE, PAGE, LinkStore
from links.table import LinkTable
from process.logs import log
from process.tasks import within

REFRESH_SECONDS: Final = 1.0
"""A change made anywhere is served within this and one query; one cheap query a second and process."""

QUERY_SECONDS: Final = 10.0
"""A database that takes longer for one page of links, or for one number, counts as away."""

SLOW_SECONDS: Final = 1.5
"""A database that has not answered for this long is in trouble, though we still wait for it."""

PREPARE_SECONDS: Final = 120.0
"""For making the tables, which may wait for another process that does it, with a million links already there."""


class LinkDirectory:
    """The links of one process, by id and by slug."""

    def __init__(self, store: LinkStore, query_seconds: float = QUERY_SECONDS) -> None:
        self._store = store
        self._query_seconds = query_seconds
        self._table = LinkTable()
        self._revision = 0
        self.loaded = False
        """Whether the table was ever read."""
        self._away: str | None = None
        self._asked_at: float | None = None

    def __len__(self) -> int:
        return len(self._table)

    @property
    def trouble(self) -> str | None:
        """Tell what is wrong with the database at present, as far as `keep_fresh` knows: `away` or `slow`."""
        if self._away is not None:
            return "away"
        waited = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
        return "slow" if self.loaded and waited > SLOW_SECONDS else None

    def by_id(self, link_id: int) -> Link | None:
        """Find a link by its number."""
        return self._table.by_id(link_id)

    def by_slug(self, slug: str) -> Link | None:
        """Find a link by its short name."""
        return self._table.by_slug(slug)

    async def refresh(self) -> None:
        """Take over what changed since the last time; raises LinkStoreError or TimeoutError."""
        if not self.loaded and not await within(self._query_seconds, self._store.is_prepared()):
            await within(PREPARE_SECONDS, self._store.prepare())
        last = await within(self._query_seconds, self._store.last_revision())
        if last is None:
            raise LinkStoreError("the database of links has lost its table `links_revision`'s row")
        if not self.loaded:
            await self._load(last)
        elif last < self._revision:
            await self._go_back(last)
        elif last > self._revision:
            async for changes in self._pages(Position(self._revision + 1, -1), PAGE):
                _apply(changes, self._table)
        self._revision = last
        self.loaded = True

    async def keep_fresh(self) -> None:
        """Refresh every second until cancelled."""
        while True:
            self._asked_at = time.monotonic()
            try:
                await self.refresh()
            except (LinkStoreError, TimeoutError) as error:
                if self._away is None:
                    log.warning("links_database_away", why=str(error), links=len(self))
                self._away = str(error)
            else:
                if self._away is not None:
                    log.warning("links_database_back", links=len(self))
                self._away = None
            self._asked_at = None
            await asyncio.sleep(REFRESH_SECONDS)

    async def _load(self, last: int) -> None:
        began = time.monotonic()
        self._table = await self._everything()
        seconds = round(time.monotonic() - began, 3)
        log.info("links_loaded", links=len(self), revision=last, seconds=seconds)

    async def _go_back(self, last: int) -> None:
        """Serve what an older database has; if it has nothing at all, that is an accident: keep what we have."""
        table = await self._everything()
        if len(table):
            log.warning(
                "links_database_went_back",
                from_revision=self._revision,
                to_revision=last,
                links_before=len(self),
                links=len(table),
            )
            self._table = table
        else:
            log.warning("links_database_emptied", links_still_served=len(self))

    async def _everything(self) -> LinkTable:
        table = LinkTable()
        async for changes in self._pages(BEGINNING, PAGE if self.loaded else FIRST_PAGE):
            _apply(changes, table)
        return table

    async def _pages(self, after: Position, most: int) -> AsyncIterator[Changes]:
        position: Position | None = after
        while position is not None:
            changes, position = await within(self._query_seconds, self._store.page(position, most))
            yield changes


def _apply(changes: Changes, table: LinkTable) -> None:
    for link_id in changes.deleted:
        table.drop(link_id)
    for link in changes.links:
        table.put(link)
    if changes.unreadable:
        log.error("links_unreadable", ids=changes.unreadable[:10], count=len(changes.unreadable))
