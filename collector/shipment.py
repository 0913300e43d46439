"""One journal on its way to the queue it is bound to.

Redis holds the position of every journal and moves it in the very script that pushes the lines. So a lost
reply, a crash or a script that arrives late is answered by asking Redis where the journal stands.
"""

from dataclasses import dataclass
from importlib import resources
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from collector.durability import is_durable
from collector.journal import Journal
from collector.open_journal import OpenJournal
from collector.queue import QueueKeys, queue_id
from process.logs import log

MOST_LINES: Final = 4_000
"""Lines in one script: Lua's unpack fails above about 8,000."""

MOST_BYTES: Final = 1024 * 1024
"""Bytes read from the journal at once; about 2,000 clicks."""

_SHIP: Final = resources.files("collector").joinpath("ship.lua").read_text()


@dataclass(frozen=True, slots=True)
class _Push:
    """What a push moves, and will have been if Redis stands at its end."""

    end: int
    lines: int
    torn_bytes: int
    gone_bytes: int


_NOTHING: Final = _Push(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class QueueEnd:
    """One queue on one Redis."""

    redis: Redis
    keys: QueueKeys


class Shipment:
    """One journal on its way to the queue it is bound to."""

    def __init__(self, journal: Journal, end: QueueEnd) -> None:
        self.journal = journal
        self.end = end
        self._ship = end.redis.register_script(_SHIP)
        self.position: int | None = None
        """What Redis said last; None: ask."""
        self.lines = 0
        """Lines that Redis took."""
        self.went_back = 0
        """How often Redis was found behind what it had acknowledged."""
        self.acknowledged = 0
        """How far Redis said that it has the journal."""
        self.torn_bytes = 0
        """Passed over because no whole record stood there."""
        self.gone_bytes = 0
        """What neither Redis nor the journal has any more: Redis went back too far, or the folder was taken away."""
        self._unanswered = _NOTHING
        """The last push, as long as it is not known whether it arrived."""

    async def step(self) -> bool:
        """Ship some records; False when there is nothing left to ship. Raises RedisError."""
        queue = self.journal.queue_id
        if queue is None:
            queue = await queue_id(self.end.redis, self.end.keys)
            self.journal.bind(queue)
        if self.position is None:
            self._take_over(int(await self.end.redis.get(self._position_key) or 0))
        expected = self.position or 0
        until = self.journal.position if isinstance(self.journal, OpenJournal) else None
        chunk = self.journal.read(expected, most_lines=MOST_LINES, most_bytes=MOST_BYTES, until=until)
        if chunk.end == expected:
            return False
        self._unanswered = _Push(chunk.end, len(chunk.lines), chunk.torn, chunk.begin - expected)
        self.position = None
        keys = [self.end.keys.list, self._position_key, self.end.keys.id]
        try:
            stored = await self._ship(keys, [expected, chunk.end, queue, *chunk.lines])
        except ResponseError as error:
            if not str(error).startswith("OTHERQUEUE"):
                raise
            await self._follow_emptied_redis(queue)
            return True
        self._take_over(int(stored))
        return True

    def look_again(self) -> None:
        """Ask Redis where the journal stands: it may have gone back in time."""
        self.position = None

    def begin_again(self, gone_bytes: int) -> None:
        """Go on with a journal begun again, whose old self took so many bytes with it."""
        self.position, self.acknowledged, self._unanswered = None, 0, _NOTHING
        self.gone_bytes += gone_bytes

    async def forget_position(self) -> None:
        """Have Redis forget where the journal stands: it was shipped, and is removed. Raises RedisError."""
        await self.end.redis.delete(self._position_key)

    def _take_over(self, stored: int) -> None:
        """Believe Redis where the journal stands; a push whose reply was lost is counted when it is seen there."""
        push, self._unanswered = self._unanswered, _NOTHING
        if stored == push.end:
            self.lines += push.lines
            self._count_passed_over(push.torn_bytes, push.gone_bytes)
        if stored < self.acknowledged:
            self.went_back += 1
            log.error(
                "redis_went_back",
                journal=self.journal.id,
                from_position=self.acknowledged,
                to_position=stored,
            )
        self.position = self.acknowledged = stored

    def _count_passed_over(self, torn: int, gone: int) -> None:
        if torn:
            self.torn_bytes += torn
            log.warning("journal_torn", journal=self.journal.id, bytes_skipped=torn)
        if gone:
            self.gone_bytes += gone
            log.error(
                "redis_went_back_too_far",
                journal=self.journal.id,
                bytes_gone=gone,
                cure="appendonly yes for Redis; or let journals keep more: JOURNAL_KEEP_SECONDS, JOURNAL_MAX_BYTES",
            )

    async def _follow_emptied_redis(self, old_queue: str) -> None:
        """Go on with the queue that a Redis has now, where it had another while we were running.

        It was emptied, or replaced by another: all that the journal keeps is shipped again. What some reader
        had already doubles, with the same event ids; what nobody had is not lost.
        """
        new_queue = await queue_id(self.end.redis, self.end.keys)
        self.journal.bind(new_queue)
        log.error("redis_lost_its_queue", journal=self.journal.id, old_queue=old_queue, new_queue=new_queue)

    async def durable(self) -> int:
        """Give a position that Redis will not fall behind when it dies; 0 if none is known. Raises RedisError."""
        position = self.position or 0
        return position if await is_durable(self.end.redis, self.end.keys.key("durable")) else 0

    @property
    def _position_key(self) -> str:
        return self.end.keys.position(self.journal.id)
