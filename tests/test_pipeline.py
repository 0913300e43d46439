"""claim → enrich → publish → forget, ended at each step: what the next owner finds, and what readers see."""

import asyncio
import json

import pytest
from kafka_reader import read_committed
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from collector.queue import CLICK_QUEUE, QueueKeys
from embedded.redis import running_redis
from geoip.place import NOWHERE
from kafkastore.pipeline import Pipeline
from kafkastore.queue import Queue
from kafkastore.settings import KafkastoreSettings
from process import tasks

KEYS = QueueKeys(CLICK_QUEUE)
LINES = [
    b"203.0.113.42 1769860800 clicks /t/click campaign_link_id=%d iPhone" % number for number in range(50)
]


class DiedError(BaseException):
    """Stands for kill -9: nobody catches it."""


class DiesBeforeForget(Queue):
    async def forget(self, batch, unpublishable=()):
        raise DiedError


class DiesAfterForget(Queue):
    async def forget(self, batch, unpublishable=()):
        await super().forget(batch, unpublishable)
        raise DiedError


class DiesAfterClaim(Queue):
    async def claim(self):
        assert await super().claim()
        raise DiedError


@pytest.fixture
def settings(apache_kafka, topic_prefix):
    return KafkastoreSettings(kafka_url=apache_kafka.url, kafka_prefix=topic_prefix, kafka_partitions=2)


def pipeline_of(settings):
    return Pipeline(settings, lambda _address: NOWHERE, until_empty=True)


async def move(settings, queue):
    pipeline = pipeline_of(settings)
    async with asyncio.timeout(60):
        await pipeline.run([queue], asyncio.Event())
    return pipeline


def clicks(settings):
    records = read_committed(settings.kafka_url, settings.kafka_prefix + "clicks")
    return [json.loads(record.value()) for record in records]


@pytest.mark.parametrize("dying", [DiesAfterClaim, DiesBeforeForget, DiesAfterForget])
async def test_a_death_at_any_step_loses_and_doubles_nothing(redis, settings, dying):
    await redis.rpush(CLICK_QUEUE, *LINES)
    with pytest.raises(DiedError):
        await move(settings, dying(redis, KEYS))
    await redis.rpush(CLICK_QUEUE, *LINES)
    await move(settings, Queue(redis, KEYS))
    found = clicks(settings)
    assert sorted(click["link_id"] for click in found) == sorted([*range(50), *range(50)])
    assert len({click["event_id"] for click in found}) == 100, "two equal lines are two clicks"


async def test_at_least_once_repeats_the_batch_with_the_same_ids(redis, settings):
    settings = settings.model_copy(update={"delivery": "at_least_once"})
    await redis.rpush(CLICK_QUEUE, *LINES)
    with pytest.raises(DiedError):
        await move(settings, DiesBeforeForget(redis, KEYS))
    await move(settings, Queue(redis, KEYS))
    found = clicks(settings)
    assert len(found) == 100
    assert len({click["event_id"] for click in found}) == 50


async def test_a_batch_that_another_owner_published_meanwhile_is_not_published_again(redis, settings):
    """The zombie claims, sleeps past its lease, and goes on when its successor is long done."""
    await redis.rpush(CLICK_QUEUE, *LINES)
    awake = asyncio.Event()

    class Sleepy(Queue):
        async def claim(self):
            batch = await super().claim()
            await redis.delete(KEYS.key("lease"))  # as if it had run out
            await awake.wait()
            return batch

    zombie = asyncio.create_task(pipeline_of(settings).run([Sleepy(redis, KEYS)], asyncio.Event()))
    async with asyncio.timeout(30):
        while not await redis.exists(KEYS.key("batch")):
            await asyncio.sleep(0.01)
    await move(settings, Queue(redis, KEYS))
    awake.set()
    await asyncio.wait({zombie}, timeout=3)
    await tasks.end({zombie})
    assert sorted(click["link_id"] for click in clicks(settings)) == list(range(50))


async def test_a_line_that_kafka_cannot_take_keeps_no_neighbour_waiting(redis, settings):
    time_to_come = b"203.0.113.42 9999999999 clicks /t/click campaign_link_id=777 iPhone"
    too_large = b"203.0.113.42 1769860800 inapp /t/x a=" + b"x" * 2_000_000 + b" iPhone"
    large_value = b"203.0.113.42 1769860800 inapp /t/x a=" + b"\xff" * 400_000 + b" iPhone"
    await redis.rpush(CLICK_QUEUE, time_to_come, too_large, large_value, *LINES)
    await move(settings, Queue(redis, KEYS))
    assert sorted(click["link_id"] for click in clicks(settings)) == [*range(50), 777]
    dead = read_committed(settings.kafka_url, settings.kafka_prefix + "inapp.dead")
    assert [letter.value() for letter in dead] == [large_value]
    assert dict(dead[0].headers())["reason"] == b"too large for Kafka"
    assert await redis.lrange(KEYS.key("click_invalid"), 0, -1) == [too_large]


async def test_a_redis_that_is_full_can_still_be_drained(tmp_path, redis_binary, settings):
    with running_redis(tmp_path, binary=redis_binary, extra=("--maxmemory", "4mb")) as server:
        async with Redis.from_url(server.url) as redis:
            with pytest.raises(OutOfMemoryError):
                while True:
                    await redis.rpush(CLICK_QUEUE, *LINES)
            waiting = await redis.llen(CLICK_QUEUE)
            await move(settings, Queue(redis, KEYS))
    assert len(clicks(settings)) == waiting


async def test_until_empty_ends_beside_an_owner_of_an_empty_queue(redis, settings):
    owner = Queue(redis, KEYS)
    assert await owner.own()
    await move(settings, Queue(redis, KEYS))


async def test_bots_under_drop_are_counted_and_nowhere_else(redis, settings):
    settings = settings.model_copy(update={"bots": "drop"})
    await redis.rpush(CLICK_QUEUE, b"203.0.113.42 1769860800 clicks /t/click p curl/8.5.0", LINES[0])
    pipeline = await move(settings, Queue(redis, KEYS))
    assert (pipeline.dropped_bots, pipeline.published) == (1, {"clicks": 1})
