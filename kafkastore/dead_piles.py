"""The piles that dead letters lie on, and the one step of Redis' in which some of them leave.

The marks of a cluster's partitions are one hash, `{click_queue}:dead:<cluster id>`, in the Redis that gets the
lines: whoever finds another mark there than the one it read before pushes nothing. Lines that Kafka refused lie
in that Redis anyway, and go from one list to the other.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from typing import Any, Final

from aiokafka import TopicPartition
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from collector.queue import CLICK_QUEUE, QueueKeys, open_redis, queue_keys
from kafkastore.dead_letters import DEAD, DeadTopics, Letter, Mark, Span, open_dead_topics
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import topics_of

CLICK_INVALID: Final = "click_invalid"
"""The list of lines that Kafka took neither as an event nor as a dead letter."""

_FIRST_QUEUE: Final = QueueKeys(CLICK_QUEUE)

_REDRIVE: Final = resources.files("kafkastore").joinpath("redrive.lua").read_text()

_MOVE_HEAD: Final = """#!lua flags=allow-oom
-- KEYS: click_invalid, and the list to move the line to, or nothing to drop it. ARGV: SHA-1 of the line.
if redis.sha1hex(redis.call('LINDEX', KEYS[1], 0) or '') ~= ARGV[1] then return 0 end
if KEYS[2] then
  redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
else
  redis.call('LPOP', KEYS[1])
end
return 1
"""


class MarkMovedError(Exception):
    """Another process redrives or drops the same letters."""


class UnknownTopicError(Exception):
    """There is no such topic of dead letters."""


class DeadPartition:
    """The letters of a topic's partition behind its mark, and the Redis that keeps the mark."""

    def __init__(self, topics: DeadTopics, span: Span, redis: Redis, marks: str) -> None:
        self.span = span
        self.topic = span.topic
        self._topics = topics
        self._redis = redis
        self._marks = marks
        self._mark = span.mark.encode() if span.mark else ""
        self._script = redis.register_script(_REDRIVE)

    def letters(self) -> AsyncIterator[Letter]:
        """Give the letters, the oldest first."""
        return self._topics.letters(self.span)

    async def move(self, letters: Sequence[Letter], *, redrive: bool) -> None:
        """Set the mark on the last of the letters that come next; `redrive` pushes their lines in the same step."""
        mark = letters[-1].mark
        await self._set(mark.encode() if mark else "", [letter.line for letter in letters] if redrive else [])

    async def pass_over_removed(self) -> None:
        """Set the mark behind what Kafka's retention removed, where no letter is left that could carry it."""
        await self._set(self.span.mark_of_removed.encode(), [])

    async def waiting(self) -> int:
        """Count the lines in the queue that gets ours."""
        return int(await self._redis.llen(CLICK_QUEUE))

    async def _set(self, mark: str, lines: list[bytes]) -> None:
        field = _field(self.span.partition)
        try:
            stored: Any = await self._script([CLICK_QUEUE, self._marks], [field, self._mark, mark, *lines])
        except (RedisConnectionError, RedisTimeoutError):
            # The reply is lost, not necessarily the step: ask. If it comes late, the mark decides as ever.
            stored = await self._redis.hget(self._marks, field) or b""
            if stored.decode() == self._mark:
                raise
        if stored.decode() != mark:
            raise MarkMovedError(f"{self.topic}, partition {self.span.partition.partition}")
        self._mark = mark


class InvalidList:
    """A queue's lines that Kafka took in no form."""

    topic: Final = CLICK_INVALID

    def __init__(self, redis: Redis, keys: QueueKeys, number: int) -> None:
        self._redis = redis
        self._queue = keys.list
        self._list = keys.key(CLICK_INVALID)
        self._number = number
        self._moved = 0
        self._script = redis.register_script(_MOVE_HEAD)

    async def letters(self) -> AsyncIterator[Letter]:
        """Give the lines that are there now, the oldest first; one by one, for each may have many megabytes."""
        begin = self._moved
        for offset in range(await self._redis.llen(self._list)):
            line: Any = await self._redis.lindex(self._list, offset - (self._moved - begin))
            if line is None:
                return
            yield Letter(self.topic, self._number, offset, None, "publish", "refused by Kafka", line)

    async def move(self, letters: Sequence[Letter], *, redrive: bool) -> None:
        """Take the letters that come next off the list; `redrive` puts each back into its queue in the same step."""
        for letter in letters:
            keys = [self._list, self._queue] if redrive else [self._list]
            digest = hashlib.sha1(letter.line, usedforsecurity=False).hexdigest()
            if not await self._script(keys, [digest]):
                raise MarkMovedError(self.topic)
            self._moved += 1

    async def waiting(self) -> int:
        """Count the lines in the queue that gets ours."""
        return int(await self._redis.llen(self._queue))


Pile = DeadPartition | InvalidList
"""Letters that lie together and leave in their order."""


@asynccontextmanager
async def open_piles(settings: KafkastoreSettings, topic: str | None) -> AsyncIterator[list[Pile]]:
    """Find what lies dead of one topic (`clicks`, `clicks.dead` or `click_invalid`), or of all of ours.

    Raises UnknownTopicError, RedisError, PublishError, KafkaError, OSError.
    """
    async with AsyncExitStack() as stack:
        redises = [open_redis(url, tls_insecure=settings.redis_tls_insecure) for url in settings.redis_urls]
        for redis in redises:
            stack.push_async_callback(redis.aclose)
        topics = await stack.enter_async_context(open_dead_topics(settings))
        names = _wanted(topic, topics.names, settings)
        lists = [(redis, keys) for redis in redises for keys in queue_keys(settings.queues)]
        yield [
            *await _partitions(topics, [name for name in names if name != CLICK_INVALID], redises),
            *(InvalidList(*one, number) for number, one in enumerate(lists) if CLICK_INVALID in names),
        ]


def _wanted(topic: str | None, there: Sequence[str], settings: KafkastoreSettings) -> list[str]:
    """Choose the topics. One that no setting names may be another's: it is taken only if it is asked for."""
    if topic is None:
        return [*(name for name in there if name in topics_of(settings)), CLICK_INVALID]
    wanted = topic if topic == CLICK_INVALID else topic.removesuffix(DEAD) + DEAD
    if wanted not in (*there, CLICK_INVALID):
        raise UnknownTopicError(f"`{wanted}` is not there: {', '.join((*there, CLICK_INVALID))} are")
    return [wanted]


async def _partitions(
    topics: DeadTopics, names: Sequence[str], redises: Sequence[Redis]
) -> list[DeadPartition]:
    """Find every partition's mark in whichever Redis has it; lines of one without go to the first Redis."""
    marks = _FIRST_QUEUE.key(f"dead:{topics.cluster_id}")
    found: list[tuple[Redis, dict[Any, Any]]] = [(redis, await redis.hgetall(marks)) for redis in redises]
    partitions = []
    for name in names:
        for partition in topics.partitions(name):
            field = _field(partition).encode()
            known = [(Mark.decode(marked[field]), redis) for redis, marked in found if field in marked]
            # Two Redis that were each used alone may both have one: what either has done is done.
            mark, redis = max(known, key=lambda one: one[0].offset, default=(None, redises[0]))
            span = await topics.span(name, partition, mark)
            partitions.append(DeadPartition(topics, span, redis, marks))
    return partitions


def _field(partition: TopicPartition) -> str:
    return f"{partition.topic}:{partition.partition}"
