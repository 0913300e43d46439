"""How every process sees the links: all in memory, refreshed from the database every second.

A database that is down, slow or empty never takes a link away that was once loaded: only a deletion does.
"""

import asyncio
from typing import Final

from links.link import Link
from links.store import Changes, LinkStore, LinkStoreError
from process.logs import log
from process.tasks import within

REFRESH_SECONDS: Final = 1.0
"""A change made anywhere is served within this and one query; one cheap query a second and process."""

QUERY_TIMEOUT_SECONDS: Final = 10.0
"""A database that takes longer counts as away; a first load of 100,000 links takes about two seconds."""


class LinkDirectory:
    """The links of one process, by id and by slug."""

    def __init__(self, store: LinkStore) -> None:
        self._store = store
        self._by_id: dict[int, Link] = {}
        self._by_slug: dict[str, Link] = {}
        self._revision = 0
        self.loaded = False
        """Whether the table was ever read."""

    def __len__(self) -> int:
        return len(self._by_id)

    def by_id(self, link_id: int) -> Link | None:
        """Find a link by its number."""
        return self._by_id.get(link_id)

    def by_slug(self, slug: str) -> Link | None:
        """Find a link by its short name."""
        return self._by_slug.get(slug)

    async def refresh(self) -> None:
        """Take over what changed since the last time; raises LinkStoreError or TimeoutError."""
        self._apply(await within(QUERY_TIMEOUT_SECONDS, self._changes()))
        self.loaded = True

    async def keep_fresh(self) -> None:
        """Refresh every second until cancelled."""
        away = False
        while True:
            try:
                await self.refresh()
            except (LinkStoreError, TimeoutError) as error:
                if not away:
                    log.warning("links_database_away", why=str(error) or "it takes too long", links=len(self))
                away = True
            else:
                if away:
                    log.warning("links_database_back", links=len(self))
                away = False
            await asyncio.sleep(REFRESH_SECONDS)

    async def _changes(self) -> Changes:
        if not self.loaded:
            await self._store.prepare()
        return await self._store.changes_since(self._revision)

    def _apply(self, changes: Changes) -> None:
        for link_id in [*changes.deleted, *(link.id for link in changes.links)]:
            old = self._by_id.pop(link_id, None)
            if old is not None and old.slug is not None:
                self._by_slug.pop(old.slug, None)
        for link in changes.links:
            self._by_id[link.id] = link
            if link.slug is not None:
                self._by_slug[link.slug] = link
        self._revision = changes.revision
