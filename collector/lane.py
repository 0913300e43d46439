"""A lane: one queue, and the journal of this process that is shipped there. One journal, one Redis.

A Redis that is away keeps its lane's journal waiting; the next events go by another lane, and what is in this one
goes when its Redis is back.
"""

import asyncio
import time
from typing import Final, Literal

from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from collector.breaker import Breaker
from collector.group_sync import GroupSync
from collector.open_journal import OpenJournal
from collector.shipment import QueueEnd, Shipment
from collector.space import Space
from process.logs import log

LINGER_SECONDS: Final = 0.005
"""How long a first event waits for company: at most 200 round trips a second, 5 ms of 50 to Kafka."""

ENOUGH_BYTES: Final = 128 * 1024
"""So much is shipped without waiting for more: about 200 clicks."""

FSYNC_SECONDS: Final = 1.0
"""A visitor waits this long for the disk at most; then the event is in the page cache, as with DURABILITY=journal."""

ACKNOWLEDGE_SECONDS: Final = 0.05
"""A visitor waits this long for Redis at most; then the event is on the disk, as with DURABILITY=fsync."""

LOOK_AROUND_SECONDS: Final = 1.0
"""How often an idle lane asks Redis where it stands, and removes old segments."""


Durability = Literal["journal", "fsync", "redis"]
"""What has an event before the visitor is answered: the system, its disk too, Redis too."""


class Lane:
    """Ships one journal as it grows."""

    def __init__(
        self,
        journal: OpenJournal,
        end: QueueEnd,
        space: Space,
        *,
        durability: Durability,
        keep_seconds: float,
        longest_open_seconds: float,
    ) -> None:
        self.journal = journal
        self.queue = end.keys.list
        self.shipment = Shipment(journal, end)
        self.breaker = Breaker(longest_open_seconds)
        self.trouble: str | None = None
        """Why Redis takes no events at present."""
        self._space = space
        self._keep_seconds = keep_seconds
        self._durability = durability
        self._linger_seconds = 0.0 if durability == "redis" else LINGER_SECONDS
        self._disk = GroupSync(journal)
        self.unsafe = 0
        """Events whose visitors were answered before they were as safe as wanted."""
        self._appended = asyncio.Event()
        self._moved = asyncio.Event()
        self._forgot_at = 0.0

    def append(self, *lines: bytes) -> None:
        """Write events down and have them shipped; raises what OpenJournal.append does."""
        self.journal.append(*lines)
        self._appended.set()

    @property
    def unshipped_bytes(self) -> int:
        """Count the bytes of events that Redis does not have, as far as we know."""
        return self.journal.position - self.shipment.acknowledged

    async def safe(self) -> None:
        """Wait until what was appended is as safe as wanted, or for as long as a visitor may wait."""
        if self._durability == "journal":
            return
        position = self.journal.position
        try:
            async with asyncio.timeout(FSYNC_SECONDS):
                await self._disk.synced(position)
            if self._durability == "redis":
                async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                    await self._shipped(position)
        except (TimeoutError, OSError):
            self.unsafe += 1

    async def _shipped(self, position: int) -> None:
        while (self.shipment.position or 0) < position:
            self._moved.clear()
            await self._moved.wait()

    async def ship(self) -> None:
        """Ship until cancelled."""
        while True:
            try:
                while await self.shipment.step():
                    self._moved.set()
                    await self._forget_shipped()
                    if self._appended.is_set() and self.unshipped_bytes < ENOUGH_BYTES:
                        break  # what came meanwhile waits for company again
                await self._forget_shipped()
            except (RedisError, OSError) as error:
                await self._wait_for_redis(error)
                continue
            if self.breaker.failing:
                log.warning("shipping_goes_on", journal=self.journal.id)
            self.breaker.succeeded()
            self.trouble = None
            await self._until_appended()

    async def finish(self) -> None:
        """Ship what is left; what Redis does not take now, the next process ships."""
        try:
            while await self.shipment.step():
                pass
        except (RedisError, OSError) as error:
            log.warning("journal_left_for_the_next_process", journal=self.journal.id, why=str(error))

    async def _wait_for_redis(self, error: RedisError | OSError) -> None:
        self._mind_folder()
        if not self.breaker.failing:
            why = str(error) or type(error).__name__
            log.warning("shipping_waits", journal=self.journal.id, why=why)
        self.trouble = _trouble(error)
        await asyncio.sleep(self.breaker.failed())

    async def _until_appended(self) -> None:
        """Wait for events, and for company for the first one; look around from time to time."""
        try:
            async with asyncio.timeout(LOOK_AROUND_SECONDS):
                await self._appended.wait()
        except TimeoutError:
            self._mind_folder()
            self.shipment.look_again()
        else:
            self._appended.clear()
            await asyncio.sleep(self._linger_seconds)

    def _mind_folder(self) -> None:
        """Begin a new journal if somebody took the folder of ours away."""
        journal, unshipped = self.journal.id, self.unshipped_bytes
        try:
            if self.journal.folder.exists():
                return
            self.journal.begin_again(self.shipment.position)
        except OSError:
            return  # /readyz says that nothing can be written; this is tried again
        gone = unshipped - self.journal.position
        log.error(
            "journal_taken_away", journal=journal, bytes_gone=gone, cure="leave JOURNAL_DIR to the collector"
        )
        self.shipment.begin_again(gone)
        self._appended.set()
        self._disk = GroupSync(self.journal)

    async def _forget_shipped(self) -> None:
        """Remove what Redis has, durably and long enough, once a second; at once where the space is needed."""
        now = time.time()
        if not self._space.is_crowded and now - self._forgot_at < LOOK_AROUND_SECONDS:
            return
        self._forgot_at = now
        self._space.look_at(self.journal.folder)
        old = now - self._keep_seconds
        if self.journal.forgettable(self.shipment.position or 0, older_than=old):
            durable = await self.shipment.durable()
            self.journal.forget(self.journal.forgettable(durable, older_than=old))


def _trouble(error: RedisError | OSError) -> str:
    """Say in a few words of ours why Redis took nothing: for whoever asks, so without its own words."""
    if isinstance(error, OSError):
        return "gets nothing: its journal cannot be read"
    if isinstance(error, OutOfMemoryError):
        return "is full"
    if isinstance(error, ReadOnlyError):
        return "is read-only"
    return "refuses events" if isinstance(error, ResponseError) else "away"
