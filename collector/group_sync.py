"""Group commit: one fsync for all the visitors who wait for the disk at that time."""

import asyncio

from collector.open_journal import OpenJournal


class GroupSync:
    """Has the disk keep a journal."""

    def __init__(self, journal: OpenJournal) -> None:
        self._journal = journal
        self._until = 0
        """The disk has the journal up to here."""
        self._syncing: asyncio.Future[int] | None = None

    async def synced(self, position: int) -> None:
        """Wait until the disk has the journal up to a position; raises OSError."""
        while self._until < position:
            # One that is under way may have begun before our event was appended: then there is another after it.
            if self._syncing is None or self._syncing.done():
                self._syncing = asyncio.ensure_future(asyncio.to_thread(self._journal.sync))
            self._until = max(self._until, await asyncio.shield(self._syncing))
