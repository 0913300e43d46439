"""The Redis end: claim a batch, forget it, and whose queue this is.

A claim moves lines from the head of the list into a batch in flight and gives it a random id, in one script.
At most one batch of a queue is in flight; whoever owns the queue next finds it there. One process owns a queue
by a lease whose value is its token; claim and forget check it in their scripts.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from collector.queue import QueueKeys, queue_id

LEASE_SECONDS: Final = 5.0
"""An owner that died is followed within this and one RENEW_SECONDS. It must outlast a Redis time-out (1 s)."""

RENEW_SECONDS: Final = 1.0
"""How often a lease is renewed, and how often those who wait for one ask."""

MOST_LINES: Final = 4_000
"""Lines in a batch: Lua's unpack fails above about 8,000, and a batch is what memory holds at once."""

_FOLDER: Final = resources.files("kafkastore")
_CLAIM: Final = _FOLDER.joinpath("claim.lua").read_text()
_FORGET: Final = _FOLDER.joinpath("forget.lua").read_text()
_OWN: Final = """#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class NotOwnerError(Exception):
    """Another process owns the queue now."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines in flight."""

    id: str
    """Random; Kafka and Redis know the batch by it."""
    lines: list[bytes]


class Queue:
    """One queue, for as long as this process may want to own it."""

    def __init__(self, redis: Redis, keys: QueueKeys) -> None:
        self._redis = redis
        self.keys = keys
        self._token = str(uuid.uuid4())
        self._lease = keys.key("lease")
        self._lines = keys.key("inflight")
        self._batch = keys.key("batch")
        self._claim = redis.register_script(_CLAIM)
        self._forget = redis.register_script(_FORGET)
        self._own = redis.register_script(_OWN)
        self._release = redis.register_script(_RELEASE)

    async def id(self) -> str:
        """Give the queue's id, which names its transactions and checkpoints."""
        return await queue_id(self._redis, self.keys)

    async def own(self) -> bool:
        """Take the lease, or renew it; False while another process has it."""
        return bool(await self._own([self._lease], [self._token, int(LEASE_SECONDS * 1000)]))

    async def claim(self) -> Batch | None:
        """Give the batch in flight, or take a new one; None if the queue is empty. Raises NotOwnerError."""
        keys = [self._lease, self.keys.list, self._lines, self._batch]
        arguments: list[str | int] = [self._token, str(uuid.uuid4()), MOST_LINES, int(LEASE_SECONDS * 1000)]
        try:
            answer = await self._claim(keys, arguments)
        except ResponseError as error:
            raise _owner_error(error) from None
        if not answer:
            return None
        batch_id, *lines = answer
        return Batch(batch_id.decode(), lines)

    async def forget(self, batch: Batch, unpublishable: Sequence[bytes] = ()) -> None:
        """Drop a batch that is in Kafka, and keep the lines that Kafka could not take in `click_invalid`.

        A batch that is not in flight any more is fine. Raises NotOwnerError.
        """
        keys = [self._lease, self._lines, self._batch, self.keys.key("click_invalid")]
        try:
            await self._forget(keys, [self._token, batch.id, *unpublishable])
        except ResponseError as error:
            raise _owner_error(error) from None

    async def release(self) -> None:
        """Let the next owner begin at once."""
        await self._release([self._lease], [self._token])

    async def length(self) -> int:
        """Count the lines that wait, the batch in flight included."""
        return int(await self._redis.llen(self.keys.list)) + int(await self._redis.llen(self._lines))


def _owner_error(error: ResponseError) -> Exception:
    return NotOwnerError(str(error)) if "NOTOWNER" in str(error) else error
