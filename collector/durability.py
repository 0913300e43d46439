"""What a Redis would still have if it died now: asked of it, never assumed."""

from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

DURABLE_MS: Final = 900
"""Below a client's time-out of 1 s; with `appendfsync everysec` the disk has what was written within a second."""

_MARK_SECONDS: Final = 60


async def is_durable(redis: Redis, mark: str) -> bool:
    """Tell whether this Redis keeps all it has acknowledged so far on its disk; waits a little. Raises RedisError.

    WAITAOF speaks of the writes of its own connection, so a mark is written first, after all the others. Where
    there is no append-only file, or a Redis before 7.2, nothing better can be known than what it acknowledged:
    then this is True, and `check` says what that means.
    """
    async with redis.pipeline(transaction=False) as pipe:
        pipe.set(mark, "1", ex=_MARK_SECONDS)
        pipe.execute_command("WAITAOF", 1, 0, DURABLE_MS)
        marked, answer = await pipe.execute(raise_on_error=False)
    if isinstance(marked, Exception):
        raise marked  # a full Redis: without a write of its own WAITAOF would wait for nothing
    if isinstance(answer, ResponseError):
        return True
    if isinstance(answer, Exception):
        raise answer
    return bool(answer[0])
