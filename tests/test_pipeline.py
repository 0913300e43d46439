"""claim → enrich → publish → forget, ended at each step: what the next owner finds, and what readers see."""

import asyncio
import json
import shutil

import pytest
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from kafka_reader import read_committed
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from collector.queue import CLICK_QUEUE, QueueKeys
from embedded.redis import running_redis
from geoip.place import NOWHERE
from kafkastore import publisher as publisher_module
from kafkastore import queue as queue_module
from kafkastore.checkpoint import CHECKPOINTS
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
    async def forget(self, *_):
        raise DiedError


class DiesAfterForget(Queue):
    async def forget(self, *what):
        await super().forget(*what)
        raise DiedError


class DiesAfterClaim(Queue):
    async def claim(self, here):
        assert await super().claim(here)
        raise DiedError


@pytest.fixture
def settings(apache_kafka, topic_prefix):
    return KafkastoreSettings(kafka_url=apache_kafka.url, kafka_prefix=topic_prefix, kafka_partitions=2)


def pipeline_of(settings, **options):
    return Pipeline(settings, lambda _address: NOWHERE, until_empty=True, **options)


async def move(settings, queue, **options):
    pipeline = pipeline_of(settings, **options)
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
        async def claim(self, here):
            batch = await super().claim(here)
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


async def left_in_flight(redis, settings, dying=DiesAfterClaim):
    await redis.rpush(CLICK_QUEUE, *LINES)
    with pytest.raises(DiedError):
        await move(settings, dying(redis, KEYS))


async def waits_because(settings, redis):
    """Give why a kafkastore does not go on."""
    with structlog.testing.capture_logs() as logs:
        moving = asyncio.create_task(pipeline_of(settings).run([Queue(redis, KEYS)], asyncio.Event()))
        async with asyncio.timeout(30):
            while not (said := [entry["why"] for entry in logs if entry["event"] == "queue_waits"]):
                await asyncio.sleep(0.02)
        await tasks.end({moving})
    return said[0]


@pytest.mark.parametrize("resolve", ["publish", "forget"])
@pytest.mark.parametrize("changed", ["cluster", "prefix"])
async def test_a_batch_that_was_on_its_way_to_another_kafka_waits_for_a_decision(
    redis, settings, topic_prefix, changed, resolve
):
    await left_in_flight(redis, settings)
    if changed == "cluster":
        await redis.hset(KEYS.key("batch"), "cluster", "another")
    else:
        settings = settings.model_copy(update={"kafka_prefix": f"{topic_prefix}new."})
    why = await waits_because(settings, redis)
    assert "--resolve=publish" in why
    assert "--resolve=forget" in why
    assert await redis.llen(KEYS.key("inflight")) == len(LINES)
    await redis.rpush(CLICK_QUEUE, b"203.0.113.42 1769860800 clicks /t/click campaign_link_id=50 iPhone")
    await move(settings, Queue(redis, KEYS), resolve=resolve)
    expected = [*range(50), 50] if resolve == "publish" else [50]
    assert sorted(click["link_id"] for click in clicks(settings)) == expected


async def test_at_least_once_skips_a_batch_that_arrived_exactly_once(redis, settings):
    await left_in_flight(redis, settings, DiesBeforeForget)
    at_least_once = settings.model_copy(update={"delivery": "at_least_once"})
    await redis.rpush(CLICK_QUEUE, b"203.0.113.42 1769860800 clicks /t/click campaign_link_id=50 iPhone")
    await move(at_least_once, Queue(redis, KEYS))
    assert sorted(click["link_id"] for click in clicks(settings)) == list(range(51))


async def test_exactly_once_takes_over_a_batch_that_was_claimed_for_at_least_once(redis, settings):
    at_least_once = settings.model_copy(update={"delivery": "at_least_once"})
    await left_in_flight(redis, at_least_once)
    await move(settings, Queue(redis, KEYS))
    assert sorted(click["link_id"] for click in clicks(settings)) == list(range(50))


async def test_a_redis_that_went_back_is_counted_once(redis, settings):
    await redis.rpush(CLICK_QUEUE, LINES[0])
    assert (await move(settings, Queue(redis, KEYS))).redis_went_back == 0
    older = await redis.dump(KEYS.key("forgotten"))
    await redis.rpush(CLICK_QUEUE, LINES[1])
    assert (await move(settings, Queue(redis, KEYS))).redis_went_back == 0
    await redis.restore(KEYS.key("forgotten"), 0, older, replace=True)
    with structlog.testing.capture_logs() as logs:
        pipeline = pipeline_of(settings)
        async with asyncio.timeout(60):
            await pipeline.run([Queue(redis, KEYS)], asyncio.Event())
            await pipeline.run([Queue(redis, KEYS)], asyncio.Event())
    assert pipeline.redis_went_back == 1
    assert [entry["event"] for entry in logs].count("redis_went_back") == 1
    await redis.rpush(CLICK_QUEUE, LINES[2])
    await move(settings, Queue(redis, KEYS))
    assert (await move(settings, Queue(redis, KEYS))).redis_went_back == 0


async def test_checkpoints_that_were_deleted_are_missed(redis, settings):
    await redis.rpush(CLICK_QUEUE, LINES[0])
    await move(settings, Queue(redis, KEYS))
    await delete_topic(settings, CHECKPOINTS)
    with structlog.testing.capture_logs() as logs:
        await redis.rpush(CLICK_QUEUE, LINES[1])
        await move(settings, Queue(redis, KEYS))
    assert "checkpoints_lost" in [entry["event"] for entry in logs]
    assert sorted(click["link_id"] for click in clicks(settings)) == [0, 1]


async def delete_topic(settings, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_url)
    await admin.start()
    name = settings.kafka_prefix + topic
    await admin.delete_topics([name])
    async with asyncio.timeout(30):
        while name in await admin.list_topics():
            await asyncio.sleep(0.02)
    await admin.close()


async def test_a_publisher_that_sent_its_share_is_followed_by_a_new_one(redis, settings, monkeypatch):
    monkeypatch.setattr(publisher_module, "MOST_RECORDS", 100)
    monkeypatch.setattr(queue_module, "MOST_LINES", 60)
    started = 0
    start = publisher_module._start

    async def counted(*what):
        nonlocal started
        started += 1
        return await start(*what)

    monkeypatch.setattr(publisher_module, "_start", counted)
    await redis.rpush(CLICK_QUEUE, *LINES * 6)
    await move(settings, Queue(redis, KEYS))
    assert len({click["event_id"] for click in clicks(settings)}) == len(clicks(settings)) == 300
    assert started == 3


@pytest.mark.parametrize(
    ("appendonly", "appendfsync"), [("yes", "everysec"), ("yes", "always"), ("no", "everysec")]
)
async def test_a_claim_is_on_disk_before_it_is_published(tmp_path, settings, appendonly, appendfsync):
    """The disk is copied when the batch may go out, and Redis dies and comes back with that older state."""
    settings = settings.model_copy(update={"claim_durable": True})
    copied = tmp_path / "copy"

    class Copies(Queue):
        async def wait_until_durable(self, persistence):
            await super().wait_until_durable(persistence)
            shutil.copytree(tmp_path / "redis" / "appendonlydir", copied)

    extra = ("--appendonly", appendonly)
    with running_redis(tmp_path / "redis", appendfsync=appendfsync, extra=extra) as server:
        async with Redis.from_url(server.url) as redis:
            await redis.rpush(CLICK_QUEUE, *LINES)
            if appendonly == "no":
                assert "CLAIM_DURABLE=1 needs" in await waits_because(settings, redis)
                assert not clicks(settings)
                return
            await move(settings, Copies(redis, KEYS))
        server.kill()
        shutil.rmtree(tmp_path / "redis" / "appendonlydir")
        shutil.copytree(copied, tmp_path / "redis" / "appendonlydir")
        server.start()
        async with Redis.from_url(server.url) as redis:
            assert await redis.llen(KEYS.key("inflight")) == len(LINES)
            pipeline = await move(settings, Queue(redis, KEYS))
            assert pipeline.redis_went_back == 0
    assert sorted(click["link_id"] for click in clicks(settings)) == list(range(50))
