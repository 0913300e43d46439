"""The shipper: journal → Redis, position and lines together.

Redis holds the position of every journal and moves it in the very script that pushes the lines. So a lost
reply, a crash or a script that arrives late is answered by asking Redis where the journal stands.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.journal import Journal, OpenJournal, journals_left_behind
from collector.queue import QueueKeys, queue_id
from process.logs import log

MOST_LINES: Final = 4_000
"""Lines in one script: Lua's unpack fails above about 8,000."""

MOST_BYTES: Final = 1024 * 1024
"""Bytes read from the journal at once; about 2,000 clicks."""

LINGER_SECONDS: Final = 0.005
"""How long a first event waits for company: at most 200 round trips a second, 5 ms of 50 to Kafka."""

LOOK_AROUND_SECONDS: Final = 1.0
"""How often an idle shipper asks Redis where it stands, removes old segments and looks for journals left behind."""

LONGEST_PAUSE_SECONDS: Final = 2.0
"""Between attempts at a Redis that is away; the pause begins at 0.1 s and doubles."""

_SHIP: Final = resources.files("collector").joinpath("ship.lua").read_text()


@dataclass(frozen=True, slots=True)
class QueueEnd:
    """One queue on one Redis."""

    redis: Redis
    keys: QueueKeys


class Shipment:
    """One journal on its way to the queue it is bound to."""

    def __init__(self, journal: Journal, end: QueueEnd) -> None:
        self.journal = journal
        self._end = end
        self._ship = end.redis.register_script(_SHIP)
        self.position: int | None = None
        """What Redis said last; None: ask."""
        self.lines = 0
        """Lines shipped."""

    async def step(self) -> bool:
        """Ship some records; False when there is nothing left to ship. Raises RedisError."""
        queue = self.journal.queue_id
        if queue is None:
            queue = await queue_id(self._end.redis, self._end.keys)
            self.journal.bind(queue)
        if self.position is None:
            self.position = int(await self._end.redis.get(self._position_key) or 0)
        until = self.journal.position if isinstance(self.journal, OpenJournal) else None
        chunk = self.journal.read(self.position, most_lines=MOST_LINES, most_bytes=MOST_BYTES, until=until)
        if chunk.end == self.position:
            return False
        expected, self.position = self.position, None
        keys = [self._end.keys.list, self._position_key, self._end.keys.id]
        self.position = int(await self._ship(keys, [expected, chunk.end, queue, *chunk.lines]))
        if self.position != chunk.end:
            return True  # Redis says that the journal stands elsewhere: go on from there
        self.lines += len(chunk.lines)
        if chunk.torn:
            log.warning("journal_torn", journal=self.journal.id, bytes_skipped=chunk.torn)
        return True

    async def remove(self) -> None:
        """Remove a shipped journal: first the journal, then its position."""
        self.journal.remove()
        await self._end.redis.delete(self._position_key)

    @property
    def _position_key(self) -> str:
        return self._end.keys.position(self.journal.id)


class Shipper:
    """Ships this process's journal and those left behind by processes that are gone."""

    def __init__(
        self,
        journal: OpenJournal,
        home: QueueEnd,
        ends: Sequence[QueueEnd],
        directory: Path,
        keep_seconds: float,
    ) -> None:
        self._journal = journal
        self._own = Shipment(journal, home)
        self._ends = ends
        self._directory = directory
        self._keep_seconds = keep_seconds
        self._appended = asyncio.Event()
        self.adopted = 0
        """Events of journals left behind that Redis took."""

    def wake(self) -> None:
        """Say that the journal has grown."""
        self._appended.set()

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to ship, until the tasks are ended."""
        return [asyncio.create_task(self._ship_own()), asyncio.create_task(self._adopt())]

    async def finish(self) -> None:
        """Ship what is left of our own journal; what Redis does not take now, the next process ships."""
        try:
            while await self._own.step():
                pass
        except (RedisError, OSError) as error:
            log.warning("journal_left_for_the_next_process", journal=self._journal.id, why=str(error))

    @property
    def shipped(self) -> int:
        """Events of our own journal that Redis took."""
        return self._own.lines

    async def _ship_own(self) -> None:
        while True:
            await self._until_shipped(self._own)
            kept_since = time.time() - self._keep_seconds
            if self._own.position is not None:
                self._journal.forget(self._own.position, older_than=kept_since)
            try:
                async with asyncio.timeout(LOOK_AROUND_SECONDS):
                    await self._appended.wait()
            except TimeoutError:
                self._own.position = None  # Redis may have gone back in time meanwhile
            else:
                self._appended.clear()
                await asyncio.sleep(LINGER_SECONDS)

    async def _until_shipped(self, shipment: Shipment) -> None:
        pause = 0.1
        away = False
        while True:
            try:
                while await shipment.step():
                    pause = 0.1
            except (RedisError, OSError) as error:
                if not away:
                    log.warning(
                        "redis_away", journal=shipment.journal.id, why=str(error) or type(error).__name__
                    )
                away = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                if away:
                    log.warning("redis_back", journal=shipment.journal.id)
                return

    async def _adopt(self) -> None:
        """Ship the journals left behind, keep them as long as our own, then remove them."""
        adopted: dict[str, Shipment] = {}
        without_queue: set[str] = set()
        while True:
            try:
                for journal in journals_left_behind(self._directory):
                    end = await self._end_of(journal)
                    if end is not None:
                        adopted[journal.id] = Shipment(journal, end)
                        log.info("journal_adopted", journal=journal.id)
                    else:
                        journal.release()
                        if journal.id not in without_queue:
                            log.warning(
                                "journal_of_another_redis", journal=journal.id, queue=journal.queue_id
                            )
                        without_queue.add(journal.id)
                for journal_id, shipment in list(adopted.items()):
                    shipment.position = None
                    before = shipment.lines
                    while await shipment.step():
                        pass
                    self.adopted += shipment.lines - before
                    if shipment.journal.last_written() < time.time() - self._keep_seconds:
                        del adopted[journal_id]
                        await shipment.remove()
            except RedisError:
                pass  # our own journal's shipment says so; these wait for the next round
            await asyncio.sleep(LOOK_AROUND_SECONDS)

    async def _end_of(self, journal: Journal) -> QueueEnd | None:
        """Find the queue a journal is bound to; one that never tried may go to any."""
        bound_to = journal.queue_id
        for end in self._ends:
            if bound_to is None or await queue_id(end.redis, end.keys) == bound_to:
                return end
        return None
