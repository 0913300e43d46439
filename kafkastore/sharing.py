"""How many queues of a Redis are ours: the kafkastores that are there share them, as evenly as they can be.

Each says once a second, in Redis, that it is there. It takes free queues up to its share; one that has more, since
another came, gives one back between two batches. Who dies is not counted any more before its leases end, so that
the others may take its queues at once.
"""

import asyncio
import math
import uuid
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.queue import CLICK_QUEUE, QueueKeys
from kafkastore.queue import LEASE_SECONDS, RENEW_SECONDS

PRESENT_SECONDS: Final = LEASE_SECONDS - RENEW_SECONDS
"""How long a kafkastore counts after it last said that it is there."""

_SAY: Final = """#!lua flags=allow-oom
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', seconds)
redis.call('ZADD', KEYS[1], seconds + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
"""


class Share:
    """Our share of the queues of one Redis."""

    def __init__(self, redis: Redis, queues: int) -> None:
        self._redis = redis
        self._queues = queues
        self._token = str(uuid.uuid4())
        self._key = QueueKeys(CLICK_QUEUE).key("kafkastores")
        self._say = redis.register_script(_SAY)
        self._fair = queues
        self._owned: set[str] = set()

    @property
    def owned(self) -> frozenset[str]:
        """The queues that are ours now."""
        return frozenset(self._owned)

    def may_take(self) -> bool:
        """Tell whether one queue more would be no more than our share."""
        return len(self._owned) < self._fair

    def took(self, queue: str) -> None:
        """Count a queue."""
        self._owned.add(queue)

    def gave(self, queue: str) -> None:
        """Count it no more."""
        self._owned.discard(queue)

    def gives(self, queue: str) -> bool:
        """Tell whether to give this queue back: the last by name goes first, so that one is asked, not all."""
        return len(self._owned) > self._fair and queue == max(self._owned)

    async def keep_fair(self) -> None:
        """Say that we are there, and see who else is, until cancelled."""
        while True:
            try:
                peers = int(await self._say([self._key], [self._token, PRESENT_SECONDS]))
            except (RedisError, OSError):
                pass  # whoever claims from this Redis says so
            else:
                self._fair = math.ceil(self._queues / max(peers, 1))
            await asyncio.sleep(RENEW_SECONDS)

    async def leave(self) -> None:
        """Say that we are gone. Raises RedisError."""
        await self._redis.zrem(self._key, self._token)
