"""The kafkastore as a process: how several share queues, when it stops of itself, and what it tells."""

import asyncio
import contextlib
import json
import os
import signal
import time

import pytest
from kafka_reader import read_committed
from processes import has_said, running
from test_health import MACHINE_SECONDS, ask, metrics, ready, until_ready

from embedded.ports import free_port
from embedded.redis import running_redis
from kafkastore.queue import LEASE_SECONDS
from kafkastore.stop_limit import StopLimit, StopLimitError
from process.tasks import end

READY = (200, "ready", [])


def line(number=1):
    return b"203.0.113.42 %d clicks /t/click campaign_link_id=%d iPhone" % (time.time(), number)


@pytest.fixture
def environ(redis, redis_server, apache_kafka, topic_prefix):
    return {
        "REDIS_URL": redis_server.url,
        "KAFKA_URL": apache_kafka.url,
        "KAFKA_PREFIX": topic_prefix,
        "HOST": "127.0.0.1",
    }


def kafkastore(directory, environ, **more):
    return running(
        directory, "kafkastore", "run", answers=has_said("kafkastore_started"), **{**environ, **more}
    )


async def owned(port):
    """Tell how many queues the kafkastore with this METRICS_PORT owns."""
    counted = await metrics(port)
    return sum(value for (name, _), value in counted.items() if name == "onward_queue_owned")


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.1)


async def test_kafkastores_share_queues_evenly_and_the_last_one_has_them_all(environ, redis, tmp_path):
    ports = {name: free_port() for name in ("first", "second", "third")}

    def started(name):
        return kafkastore(tmp_path / name, environ, QUEUES=4, METRICS_PORT=ports[name])

    async def until_owned(**wanted):
        async def so():
            return {name: await owned(ports[name]) for name in wanted} == wanted

        await until(so)

    with started("first"):
        await until_owned(first=4)
        with started("second") as second:
            await until_owned(first=2, second=2)
            second.kill()
            began = time.monotonic()
            for queue in ("click_queue", "click_queue:1", "click_queue:2", "click_queue:3"):
                assert 0 < await redis.pttl(f"{{{queue}}}:lease") <= LEASE_SECONDS * 1000
            await until_owned(first=4)
            assert time.monotonic() - began < 5 + 1 + 5, "lease + 1 s, and a machine's slowness"
        with started("third"):
            await until_owned(first=2, third=2)
        await until_owned(first=4)


async def test_every_queue_is_emptied_while_kafkastores_come_and_go(
    environ, redis, tmp_path, apache_kafka, topic_prefix
):
    sent = 0

    async def send_for_ever():
        nonlocal sent
        while True:
            for queue in ("click_queue", "click_queue:1", "click_queue:2", "click_queue:3"):
                await redis.rpush(queue, line(sent))
                sent += 1
            await asyncio.sleep(0.01)

    async def empty():
        queues = ("click_queue", "click_queue:1", "click_queue:2", "click_queue:3")
        return (
            sum([await redis.llen(queue) + await redis.llen(f"{{{queue}}}:inflight") for queue in queues])
            == 0
        )

    sending = asyncio.create_task(send_for_ever())
    with kafkastore(tmp_path / "first", environ, QUEUES=4):
        for name in ("second", "third"):
            with kafkastore(tmp_path / name, environ, QUEUES=4):
                await asyncio.sleep(3)
        await end({sending})
        await until(empty)
    found = [
        json.loads(record.value())["link_id"]
        for record in read_committed(apache_kafka.bootstrap, f"{topic_prefix}clicks")
    ]
    assert sorted(found) == list(range(sent))


def test_the_limit_counts_the_last_thousand_lines_and_holds_before_anything_is_published():
    limit = StopLimit(percent=50)
    limit.check([True] * 500, "why")
    limit.passed([True] * 500)
    limit.check([False] * 10, "why")
    with pytest.raises(StopLimitError, match="501 of the last 1000 lines"):
        limit.check([True], "why")
    limit.passed([False] * 1_000)
    limit.check([True] * 500, "why")
    StopLimit(percent=100).check([True] * 5_000, "why")
    with pytest.raises(StopLimitError):
        StopLimit(percent=0).check([True], "why")


async def test_a_queue_full_of_rubbish_stops_the_kafkastore_and_loses_nothing(
    environ, redis, tmp_path, apache_kafka, topic_prefix
):
    environ["METRICS_PORT"] = port = free_port()
    await redis.rpush("click_queue", *[b"rubbish"] * 600, line())
    with kafkastore(tmp_path / "first", environ) as first:
        reason = ["queue click_queue of Redis 1 stopped: too many lines are dead"]
        await until_ready(port, (503, "not ready", reason), 10)
        assert "fewer than five fields" in first.program.log.read_text("utf-8")
    assert await redis.llen("click_queue") + await redis.llen("{click_queue}:inflight") == 601
    with kafkastore(tmp_path / "second", environ, STOP_LIMIT=100):
        await until_ready(port, READY, 10)
        async with asyncio.timeout(20):
            while await redis.llen("click_queue") + await redis.llen("{click_queue}:inflight"):
                await asyncio.sleep(0.1)
    assert len(read_committed(apache_kafka.bootstrap, f"{topic_prefix}clicks.dead")) == 600
    assert len(read_committed(apache_kafka.bootstrap, f"{topic_prefix}clicks")) == 1


async def test_a_redis_that_is_away_is_told_in_time_and_what_is_moved_is_counted(
    environ, tmp_path, apache_kafka, redis_binary
):
    environ["METRICS_PORT"] = port = free_port()
    evicting = ["--maxmemory-policy", "allkeys-lru"]
    with running_redis(tmp_path / "redis", binary=redis_binary, extra=evicting) as server:
        environ["REDIS_URL"] = server.url
        with kafkastore(tmp_path, environ), contextlib.ExitStack() as stack:
            await until_ready(port, READY, 10)
            os.kill(server.pid, signal.SIGSTOP)
            stack.callback(os.kill, server.pid, signal.SIGCONT)
            async with asyncio.timeout(4 + MACHINE_SECONDS):
                while "Redis 1 of 1 away" not in (await ready(port))[2]:
                    await asyncio.sleep(0.1)
            os.kill(server.pid, signal.SIGCONT)
            await until_ready(port, READY, 5)
            import redis.asyncio as client  # noqa: PLC0415 (the name is a fixture elsewhere)

            async with client.Redis.from_url(server.url) as own:
                await own.rpush("click_queue", line(), line(), b"rubbish")
            async with asyncio.timeout(30):
                while (counted := await metrics(port)).get(("onward_batches_total", ())) is None or counted[
                    "onward_batches_total", ()
                ] < 1:
                    await asyncio.sleep(0.1)
            assert counted["onward_records_published_total", (("topic", "clicks"),)] == 2
            assert counted["onward_records_published_total", (("topic", "clicks.dead"),)] == 1
            assert counted["onward_queue_owned", (("queue", "click_queue"), ("redis", "1"))] == 1
            assert counted["onward_redis_weaknesses", (("queue", "click_queue"), ("redis", "1"))] == 1
            assert counted["onward_geoip_age_seconds", ()] > 0
            assert (await ask(port, "/healthz"))[0] == 200


async def test_a_kafka_that_is_away_is_told(environ, redis, tmp_path):
    environ |= {"KAFKA_URL": f"kafka://127.0.0.1:{free_port()}", "METRICS_PORT": free_port()}
    with kafkastore(tmp_path, environ):
        async with asyncio.timeout(30):
            while "Kafka away" not in (await ready(environ["METRICS_PORT"]))[2]:
                await asyncio.sleep(0.1)
        assert (await ready(environ["METRICS_PORT"]))[0] == 503


async def test_values_are_the_originals_text_where_that_is_wanted(
    environ, redis, tmp_path, apache_kafka, topic_prefix
):
    bot = b"66.249.66.1 1769860800 clicks /t/click campaign_link_id=2 Googlebot/2.1"
    await redis.rpush("click_queue", b"127.0.0.1 1769860800 clicks /t/click f=e&g=h iPhone Banana Phone", bot)
    with running(
        tmp_path,
        "kafkastore",
        "run",
        "--until-empty",
        answers=has_said("queue_owned"),
        VALUE_FORMAT="adtekio",
        **environ,
    ) as store:
        store._process.wait(30)
    values = sorted(
        record.value() for record in read_committed(apache_kafka.bootstrap, f"{topic_prefix}clicks")
    )
    assert len(values) == 2, "a bot is flagged among people, as the original had it"
    first, second = values
    assert first.startswith(
        b"/t/click bot_name&country&device=smartphone&device_name=iPhone&ip=2130706433&klag="
    )
    assert first.endswith(b"&platform=ios&ts=1769860800 f=e&g=h")
    assert second.startswith(b"/t/click bot_name=Google")
