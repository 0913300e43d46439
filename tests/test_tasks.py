"""A task that is told to end does, also one that talks to Redis, where a single cancellation may get lost."""

import asyncio

import pytest

from collector.queue import open_redis
from process.tasks import end, within


async def ask_for_ever(redis):
    """As our own tasks do: a command, and then a moment of waiting for work."""
    while True:
        await redis.get("x")
        await asyncio.sleep(0.001)


async def test_tasks_that_talk_to_redis_end_whenever_they_are_told_to(redis_server, redis, rng):
    client = open_redis(redis_server.url)
    await client.ping()
    for _ in range(30):
        asking = asyncio.create_task(ask_for_ever(client))
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await end({asking})
    await client.aclose()


async def test_a_wait_ends_when_its_time_is_up(redis_server, redis):
    client = open_redis(redis_server.url)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await within(0.05, ask_for_ever(client))
        assert await within(5, client.ping())
    await client.aclose()
