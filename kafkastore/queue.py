"""The Redis end: claim a batch, forget it, and whose queue this is.

A claim moves lines from the head of the list into a batch in flight and gives it a random id, in one script.
At most one batch of a queue is in flight; whoever owns the queue next finds it there. One process owns a queue
by a lease whose value is its token; claim and forget check it in their scripts.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from collector.persistence import Persistence, persistence_of
from collector.queue import QueueKeys, queue_id
from kafkastore.destination import Destination

LEASE_SECONDS: Final = 5.0
"""An owner that died is followed within this and one RENEW_SECONDS. It must outlast a Redis time-out (1 s)."""

RENEW_SECONDS: Final = 1.0
"""How often a lease is renewed, and how often those who wait for one ask."""

MOST_LINES: Final = 4_000
"""Lines in a batch: Lua's unpack fails above about 8,000, and a batch is what memory holds at once."""

DURABLE_SECONDS: Final = 5.0
"""For Redis to write a claim to its disk: with appendfsync everysec it takes one, with a busy disk two."""

_WAIT_MS: Final = 500
"""In one question, which must be answered before our client gives up (1 s)."""

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


class NotDurableError(Exception):
    """Redis does not say that a claim is on its disk; the sentence has the cure."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """What is known of a batch in flight without its lines."""

    id: str
    """Random; Kafka and Redis know the batch by it."""
    destination: Destination
    """Where it was on its way to when it was claimed."""


@dataclass(frozen=True, slots=True)
class Batch(InFlight):
    """Lines in flight."""

    lines: list[bytes]


class Queue:
    """One queue, for as long as this process may want to own it."""

    def __init__(self, redis: Redis, keys: QueueKeys) -> None:
        self.redis = redis
        self.keys = keys
        self._token = str(uuid.uuid4())
        self._lease = keys.key("lease")
        self._lines = keys.key("inflight")
        self._batch = keys.key("batch")
        self._invalid = keys.key("click_invalid")
        self._forgotten = keys.key("forgotten")
        self._claim = redis.register_script(_CLAIM)
        self._forget = redis.register_script(_FORGET)
        self._own = redis.register_script(_OWN)
        self._release = redis.register_script(_RELEASE)

    async def id(self) -> str:
        """Give the queue's id, which names its transactions and checkpoints."""
        return await queue_id(self.redis, self.keys)

    async def own(self) -> bool:
        """Take the lease, or renew it; False while another process has it."""
        return bool(await self._own([self._lease], [self._token, int(LEASE_SECONDS * 1000)]))

    async def in_flight(self) -> InFlight | None:
        """Tell which batch is in flight."""
        answer: list[Any] = await self.redis.hmget(self._batch, ["id", "cluster", "prefix", "delivery"])
        return None if answer[0] is None else _in_flight(answer)

    async def forgotten(self, destination: Destination) -> str | None:
        """Tell the id of the last batch that was forgotten because a checkpoint there says it arrived."""
        answer: Any = await self.redis.hget(self._forgotten, destination.place)
        return None if answer is None else str(answer, "ascii")

    async def claim(self, destination: Destination) -> Batch | None:
        """Give the batch in flight, or take a new one; None if the queue is empty. Raises NotOwnerError."""
        keys = [self._lease, self.keys.list, self._lines, self._batch]
        arguments: list[str | int] = [self._token, int(LEASE_SECONDS * 1000), MOST_LINES, str(uuid.uuid4())]
        arguments += [destination.cluster, destination.prefix, destination.delivery]
        try:
            answer = await self._claim(keys, arguments)
        except ResponseError as error:
            raise _owner_error(error) from None
        if not answer:
            return None
        known = _in_flight(answer[:4])
        return Batch(known.id, known.destination, answer[4:])

    async def wait_until_durable(self, persistence: Persistence) -> None:
        """Wait until what was claimed is on Redis's disk; raises NotOwnerError, NotDurableError.

        Redis answers for the writes of the very connection that asks. So this one writes first, the lease: what is
        behind the claim in the log is on disk no sooner than the claim.
        """
        if persistence.immediate:
            return
        deadline = time.monotonic() + DURABLE_SECONDS
        while time.monotonic() < deadline:
            try:
                async with self.redis.pipeline(transaction=False) as pipe:
                    pipe.eval(_OWN, 1, self._lease, self._token, str(int(LEASE_SECONDS * 1000)))
                    pipe.execute_command("WAITAOF", 1, 0, _WAIT_MS)
                    owned, (on_disk, _) = await pipe.execute()
            except ResponseError as error:
                raise NotDurableError(
                    f"CLAIM_DURABLE=1 needs Redis 7.2 or newer with appendonly yes, or appendfsync always ({error})"
                ) from None
            if not owned:
                raise NotOwnerError("another process owns this queue")
            if on_disk:
                return
        raise NotDurableError(f"Redis did not write a claim to its disk within {DURABLE_SECONDS:g} s")

    async def forget(
        self, batch: Batch, invalid: Sequence[int] = (), checkpoint_at: Destination | None = None
    ) -> None:
        """Drop a batch that is in Kafka; lines that Kafka takes in no form, by index, stay in `click_invalid`.

        `checkpoint_at` says where a checkpoint names it, if one does. A batch that is not in flight any more is
        fine. Raises NotOwnerError.
        """
        keys = [self._lease, self._lines, self._batch, self._invalid, self._forgotten]
        place = checkpoint_at.place if checkpoint_at else ""
        try:
            await self._forget(
                keys, [self._token, batch.id, place, *(batch.lines[index] for index in invalid)]
            )
        except ResponseError as error:
            raise _owner_error(error) from None

    async def persistence(self) -> Persistence:
        """Ask Redis what it keeps of what it acknowledged."""
        return await persistence_of(self.redis)

    async def release(self) -> None:
        """Let the next owner begin at once."""
        await self._release([self._lease], [self._token])

    async def length(self) -> int:
        """Count the lines that wait, the batch in flight included."""
        return int(await self.redis.llen(self.keys.list)) + int(await self.redis.llen(self._lines))


def _in_flight(answer: Sequence[bytes]) -> InFlight:
    batch_id, cluster, prefix, delivery = (field.decode() for field in answer)
    return InFlight(batch_id, Destination(cluster, prefix, delivery))


def _owner_error(error: ResponseError) -> Exception:
    return NotOwnerError(str(error)) if "NOTOWNER" in str(error) else error
