"""VISITOR_SECRET=daily: a random key a UTC day, made once, shared by all kafkastores, forgotten after 48 hours.

Without the key nobody can try all addresses until one gives a visitor id; and when the day's key is gone, nobody ever
can. The keys are in the first Redis, which every kafkastore knows; an event that comes later than its key lived gets
another one.
"""

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from collector.queue import CLICK_QUEUE, QueueKeys

KEY_SECONDS: Final = 48 * 3600

_TIMESTAMP_DIGITS: Final = 10

OLDEST_DAYS: Final = 60
NEWEST_DAYS: Final = 1
"""Days with a key of their own, around today: what says it is older or newer than that is made up, mostly."""


@dataclass(frozen=True, slots=True)
class _Key:
    key: bytes
    expires_at: float


class DailyKeys:
    """The keys of the days that are in use."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: dict[int, _Key] = {}
        self._strange_day = secrets.token_bytes(32)

    async def fetch(self, seconds: Iterable[int]) -> None:
        """Have the keys for events of these Unix times; raises RedisError."""
        now = time.time()
        self._known = {day: key for day, key in self._known.items() if key.expires_at > now}
        for day in {second // 86_400 for second in seconds} - self._known.keys():
            if _is_near(day, now):
                self._known[day] = await self._key(day, now)

    def of(self, seconds: int) -> bytes:
        """Give the key for an event of a Unix time, which was fetched before."""
        known = self._known.get(seconds // 86_400)
        return known.key if known else self._strange_day

    async def _key(self, day: int, now: float) -> _Key:
        name = QueueKeys(CLICK_QUEUE).key(
            f"visitor_key:{time.strftime('%Y-%m-%d', time.gmtime(day * 86_400))}"
        )
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(name, secrets.token_bytes(32), nx=True, ex=KEY_SECONDS)
            pipe.get(name)
            pipe.ttl(name)
            _, key, seconds_left = await pipe.execute()
        return _Key(key, now + seconds_left)


def _is_near(day: int, now: float) -> bool:
    return -OLDEST_DAYS <= day - int(now) // 86_400 <= NEWEST_DAYS


def times_of(lines: Iterable[bytes]) -> Iterator[int]:
    """Give the Unix times in the second fields of lines, where there are any."""
    for line in lines:
        fields = line.split(b" ", 2)
        if len(fields) > 1 and fields[1].isdigit() and len(fields[1]) <= _TIMESTAMP_DIGITS:
            yield int(fields[1])
