"""The shipper: journal → Redis, position and lines together.

Redis holds the position of every journal and moves it in the very script that pushes the lines. So a lost
reply, a crash or a script that arrives late is answered by asking Redis where the journal stands.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

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

SHORTEST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
"""Between attempts at a Redis that is away: the pause doubles from the one to the other."""

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
        """Lines that Redis took."""
        self._unanswered = (0, 0)
        """Where the journal will stand if the last push arrived, and its lines."""

    async def step(self) -> bool:
        """Ship some records; False when there is nothing left to ship. Raises RedisError."""
        queue = self.journal.queue_id
        if queue is None:
            queue = await queue_id(self._end.redis, self._end.keys)
            self.journal.bind(queue)
        if self.position is None:
            self._take_over(int(await self._end.redis.get(self._position_key) or 0))
        expected = self.position or 0
        until = self.journal.position if isinstance(self.journal, OpenJournal) else None
        chunk = self.journal.read(expected, most_lines=MOST_LINES, most_bytes=MOST_BYTES, until=until)
        if chunk.end == expected:
            return False
        self.position, self._unanswered = None, (chunk.end, len(chunk.lines))
        keys = [self._end.keys.list, self._position_key, self._end.keys.id]
        try:
            stored = await self._ship(keys, [expected, chunk.end, queue, *chunk.lines])
        except ResponseError as error:
            if not str(error).startswith("OTHERQUEUE"):
                raise
            await self._follow_emptied_redis(queue)
            return True
        self._take_over(int(stored))
        if chunk.torn and self.position == chunk.end:
            log.warning("journal_torn", journal=self.journal.id, bytes_skipped=chunk.torn)
        return True

    def begin_again(self) -> None:
        """Forget what was known: the journal is another one, or Redis may have gone back in time."""
        self.position = None

    async def remove(self) -> None:
        """Remove a shipped journal: first the journal, then its position."""
        self.journal.remove()
        await self._end.redis.delete(self._position_key)

    def _take_over(self, stored: int) -> None:
        """Believe Redis where the journal stands; a push whose reply was lost is counted when it is seen there."""
        end, lines = self._unanswered
        if stored == end:
            self.lines += lines
        self._unanswered = (0, 0)
        self.position = stored

    async def _follow_emptied_redis(self, old_queue: str) -> None:
        """Go on with the queue that a Redis has now, where it had another while we were running.

        It was emptied, or replaced by another: all that the journal keeps is shipped again. What some reader
        had already doubles, with the same event ids; what nobody had is not lost.
        """
        new_queue = await queue_id(self._end.redis, self._end.keys)
        self.journal.bind(new_queue)
        log.error("redis_lost_its_queue", journal=self.journal.id, old_queue=old_queue, new_queue=new_queue)

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
        self._adopted: dict[str, Shipment] = {}
        self._unshippable: set[str] = set()
        self._forgot_at = 0.0
        self.adopted = 0
        """Events of journals left behind that Redis took."""
        self.away = False
        """Whether our own journal cannot be shipped at present."""
        self.position = 0
        """How far our own journal has been shipped, as far as we know."""

    def wake(self) -> None:
        """Say that the journal has grown."""
        self._appended.set()

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to ship, until the tasks are ended."""
        return [asyncio.create_task(self._ship_own()), asyncio.create_task(self._ship_adopted())]

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
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                while await self._own.step():
                    self._forget_shipped()
            except (RedisError, OSError) as error:
                self._mind_folder()
                if not self.away:
                    log.warning(
                        "shipping_waits", journal=self._journal.id, why=str(error) or type(error).__name__
                    )
                self.away = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            if self.away:
                log.warning("shipping_goes_on", journal=self._journal.id)
            self.away, pause = False, SHORTEST_PAUSE_SECONDS
            self._forget_shipped()
            await self._until_appended()

    async def _until_appended(self) -> None:
        """Wait for events, and for company for the first one; look around from time to time."""
        try:
            async with asyncio.timeout(LOOK_AROUND_SECONDS):
                await self._appended.wait()
        except TimeoutError:
            self._own.begin_again()  # Redis may have gone back in time meanwhile
            self._mind_folder()
        else:
            self._appended.clear()
            await asyncio.sleep(LINGER_SECONDS)

    def _mind_folder(self) -> None:
        """Begin a new journal if somebody took the folder of ours away."""
        if not self._journal.folder.exists():
            log.error(
                "journal_taken_away", journal=self._journal.id, cure="leave JOURNAL_DIR to the collector"
            )
            self._journal.begin_again()
            self._own.begin_again()

    def _forget_shipped(self) -> None:
        """Remove what Redis has long had, once a second; at once where the space is needed."""
        now = time.time()
        if self._own.position is not None:
            self.position = self._own.position
        if self._own.position is not None and (
            self._journal.is_crowded or now - self._forgot_at >= LOOK_AROUND_SECONDS
        ):
            self._forgot_at = now
            self._journal.forget(self._own.position, older_than=now - self._keep_seconds)

    async def _ship_adopted(self) -> None:
        """Ship the journals left behind, keep them as long as our own, then remove them."""
        while True:
            # Redis away: our own journal's shipment says so; these wait for the next round.
            with suppress(RedisError):
                await self._adopt()
                for journal_id, shipment in list(self._adopted.items()):
                    await self._ship_one(journal_id, shipment)
            self._journal.reserved = sum(
                shipment.journal.bytes_on_disk() for shipment in self._adopted.values()
            )
            await asyncio.sleep(LOOK_AROUND_SECONDS)

    async def _adopt(self) -> None:
        for journal in journals_left_behind(self._directory):
            end = None
            try:
                end = await self._end_of(journal)
            finally:
                if end is None:
                    journal.release()
            if end is not None:
                self._adopted[journal.id] = Shipment(journal, end)
                log.info("journal_adopted", journal=journal.id)
            elif journal.id not in self._unshippable:
                self._unshippable.add(journal.id)
                log.error(
                    "journal_of_another_redis",
                    journal=journal.id,
                    queue=journal.queue_id,
                    cure="name its Redis in REDIS_URL…; if that is gone, remove the journal's file `queue`",
                )

    async def _ship_one(self, journal_id: str, shipment: Shipment) -> None:
        shipment.begin_again()
        before = shipment.lines
        while await shipment.step():
            pass
        self.adopted += shipment.lines - before
        if shipment.journal.last_written() < time.time() - self._keep_seconds:
            del self._adopted[journal_id]
            await shipment.remove()

    async def _end_of(self, journal: Journal) -> QueueEnd | None:
        """Find the queue a journal is bound to; one that never tried may go to any."""
        bound_to = journal.queue_id
        for end in self._ends:
            if bound_to is None or await queue_id(end.redis, end.keys) == bound_to:
                return end
        return None
