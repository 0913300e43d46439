"""From a line in Redis to the topics, by the processes themselves; what breaks them is in test_faults.py."""

import asyncio
import json
import time
from collections import Counter

import aiohttp
import pytest
from kafka_reader import read_committed
from processes import has_said, healthy, running

from collector.event import Event, encode_params
from embedded.ports import free_port

EVENT_TOPICS = ("clicks", "bots", "orphans")
TOPICS = (*EVENT_TOPICS, "clicks.dead")


@pytest.fixture
def environ(redis, redis_server, apache_kafka, topic_prefix, tmp_path):
    return {
        "REDIS_URL": redis_server.url,
        "KAFKA_URL": apache_kafka.url,
        "KAFKA_PREFIX": topic_prefix,
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": tmp_path / "journal",
        "PORT": free_port(),
        "HOST": "127.0.0.1",
    }


def line_of(event_id):
    params = {"event_id": event_id.encode(), "campaign_link_id": b"1"}
    return Event(
        "203.0.113.42", int(time.time()), "clicks", "/t/click", encode_params(params), b"iPhone"
    ).encode()


def id_of(number):
    return f"00000000-0000-7000-8000-{number:012d}"


def oracle(bootstrap, prefix, answered, found_where=EVENT_TOPICS):
    """Count every id; prints the line that says it all and fails if one is missing or doubled."""
    found = Counter(
        json.loads(record.value())["event_id"]
        for topic in found_where
        for record in read_committed(bootstrap, prefix + topic)
    )
    missing = set(answered) - set(found)
    doubled = [event_id for event_id, count in found.items() if count > 1]
    print(f"answered={len(answered)} found={len(found)} missing={len(missing)} doubled={len(doubled)}")
    assert not missing
    assert not doubled
    return found


async def until_empty(redis, seconds=60):
    async with asyncio.timeout(seconds):
        while await redis.llen("click_queue") + await redis.llen("{click_queue}:inflight"):
            await asyncio.sleep(0.05)


async def test_lines_that_are_no_events_become_dead_letters_and_their_neighbours_go_on(
    environ, redis, apache_kafka, topic_prefix, tmp_path
):
    good = [id_of(number) for number in range(6)]
    poison = [
        b"three fields only",
        b"203.0.113.42 9e99 clicks /t/click p x",
        b"203.0.113.42 1769860800 payments /t/click p x",
        b"203.0.113.42 1769860800 clicks\xff /t/click p x",
        b"\0\xff\r\n",
        b"",
    ]
    for event_id, line in zip(good, poison, strict=True):
        await redis.rpush("click_queue", line_of(event_id), line)
    nowhere = b"nobody 1769860800 clicks /t/click event_id=00000000-0000-7000-8000-00000000000a iPhone"
    await redis.rpush("click_queue", nowhere)
    with running(tmp_path, "kafkastore", "run", "--until-empty", answers=has_said("queue_owned"), **environ):
        await until_empty(redis)
    oracle(apache_kafka.bootstrap, topic_prefix, [*good, "00000000-0000-7000-8000-00000000000a"])
    letters = read_committed(apache_kafka.bootstrap, f"{topic_prefix}clicks.dead")
    assert sorted(letter.value() for letter in letters) == sorted(poison)
    for letter in letters:
        headers = dict(letter.headers())
        assert headers["reason"]
        assert (headers["step"], headers["topic"]) == (b"decode", b"clicks")


async def test_two_kafkastores_share_the_work_of_a_dead_one_and_one_queue_has_one_owner(
    environ, redis, apache_kafka, topic_prefix, tmp_path
):
    first, second = tmp_path / "first", tmp_path / "second"
    with running(first, "kafkastore", "run", answers=has_said("queue_owned"), **environ) as owner:
        await redis.rpush("click_queue", line_of(id_of(1)))
        with running(
            second, "kafkastore", "run", answers=has_said("kafkastore_started"), **environ
        ) as waiting:
            await until_empty(redis)
            assert "queue_owned" not in waiting.program.log.read_text("utf-8")
            owner.kill()
            await redis.rpush("click_queue", line_of(id_of(2)))
            await until_empty(redis)
            assert "queue_owned" in waiting.program.log.read_text("utf-8")
    oracle(apache_kafka.bootstrap, topic_prefix, [id_of(1), id_of(2)])


@pytest.mark.parametrize("away", ["redis", "kafka"])
async def test_sigterm_is_obeyed_while_redis_or_kafka_is_away(environ, tmp_path, away):
    environ["REDIS_URL" if away == "redis" else "KAFKA_URL"] = {
        "redis": "redis://127.0.0.1:1/0",
        "kafka": "kafka://127.0.0.1:1",
    }[away]
    with (
        running(tmp_path, "kafkastore", "run", answers=has_said("queue_waits"), **environ) as kafkastore,
        running(
            tmp_path, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ
        ) as collector,
    ):
        async with aiohttp.ClientSession() as session:
            await session.get(f"http://127.0.0.1:{environ['PORT']}/click/1/go")
    for child, said in ((kafkastore, "kafkastore_stopped"), (collector, "collector_stopped")):
        assert child._process.returncode == 0
        assert f'"{said}"' in child.program.log.read_text("utf-8")
