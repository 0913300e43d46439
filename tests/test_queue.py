"""The queue: lines are taken once, into one batch at a time, by one owner at a time."""

import asyncio

import pytest

from collector.queue import CLICK_QUEUE, QueueKeys
from kafkastore.destination import Destination
from kafkastore.queue import MOST_LINES, NotOwnerError, Queue

KEYS = QueueKeys(CLICK_QUEUE)
HERE = Destination("cluster", "prefix.", "exactly_once")


@pytest.fixture
async def queue(redis):
    queue = Queue(redis, KEYS)
    assert await queue.own()
    return queue


async def test_a_batch_is_taken_from_the_head_and_is_in_flight_until_forgotten(redis, queue):
    await redis.rpush(CLICK_QUEUE, *(b"%d" % number for number in range(MOST_LINES + 3)))
    first = await queue.claim(HERE)
    assert first.lines == [b"%d" % number for number in range(MOST_LINES)]
    assert await queue.length() == MOST_LINES + 3
    assert await queue.claim(HERE) == first, "one batch at a time, until it is forgotten"
    await queue.forget(first)
    second = await queue.claim(HERE)
    assert second.lines == [b"%d" % number for number in range(MOST_LINES, MOST_LINES + 3)]
    assert second.id != first.id
    await queue.forget(second)
    assert await queue.claim(HERE) is None
    assert await queue.length() == 0


async def test_the_next_owner_finds_the_batch_in_flight(redis, queue):
    await redis.rpush(CLICK_QUEUE, b"a", b"b")
    batch = await queue.claim(HERE)
    await queue.release()
    successor = Queue(redis, KEYS)
    assert await successor.own()
    assert await successor.claim(HERE) == batch


async def test_who_does_not_own_the_queue_takes_and_forgets_nothing(redis, queue):
    await redis.rpush(CLICK_QUEUE, b"a")
    batch = await queue.claim(HERE)
    stranger = Queue(redis, KEYS)
    assert not await stranger.own()
    with pytest.raises(NotOwnerError):
        await stranger.claim(HERE)
    with pytest.raises(NotOwnerError):
        await stranger.forget(batch)
    await stranger.release()
    assert await queue.claim(HERE) == batch


async def test_a_lease_that_ran_out_goes_to_another_and_the_old_owner_is_told(redis, queue):
    await redis.pexpire(KEYS.key("lease"), 20)
    successor = Queue(redis, KEYS)
    async with asyncio.timeout(5):
        while not await successor.own():
            await asyncio.sleep(0.005)
    with pytest.raises(NotOwnerError):
        await queue.claim(HERE)
    assert not await queue.own()


async def test_forgetting_a_batch_that_is_not_in_flight_forgets_nothing(redis, queue):
    await redis.rpush(CLICK_QUEUE, b"a")
    first = await queue.claim(HERE)
    await queue.forget(first)
    await redis.rpush(CLICK_QUEUE, b"b")
    second = await queue.claim(HERE)
    await queue.forget(first)
    assert await queue.claim(HERE) == second


async def test_lines_of_others_with_any_bytes_are_taken_as_they_are(redis, queue):
    lines = [b"", b"\0\r\n\xff", b"x" * 100_000]
    await redis.rpush(CLICK_QUEUE, *lines)
    assert (await queue.claim(HERE)).lines == lines


async def test_the_queue_keeps_its_id(redis, queue):
    assert await queue.id() == await Queue(redis, KEYS).id()
    assert await queue.id() != await Queue(redis, QueueKeys("click_queue:1")).id()
