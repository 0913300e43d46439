"""Refused records: the one that Kafka does not take becomes a dead letter, its neighbours arrive, each once."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaConnectionError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)
from kafka_reader import read_committed, values

from collector.queue import CLICK_QUEUE, QueueKeys
from geoip.place import NOWHERE
from kafkastore import pipeline as pipeline_module
from kafkastore.destination import Destination
from kafkastore.outgoing import Outgoing
from kafkastore.piece import Piece
from kafkastore.pipeline import Pipeline
from kafkastore.publisher import Publisher, open_publisher
from kafkastore.queue import Batch, Queue
from kafkastore.record import Record
from kafkastore.refusal import Answer, InvalidRecordError, RefusedError, Verdict, answers_of, judge, sift
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics

KEYS = QueueKeys(CLICK_QUEUE)
NOW = int(time.time())
DAY_MS = 86_400_000


class DiedError(BaseException):
    """Stands for kill -9: nobody catches it."""


class DiesBeforeForget(Queue):
    async def forget(self, *_):
        raise DiedError


@pytest.fixture(params=["exactly_once", "at_least_once"])
def delivery(request):
    return request.param


@pytest.fixture
def settings(apache_kafka, topic_prefix):
    return KafkastoreSettings(kafka_url=apache_kafka.url, kafka_prefix=topic_prefix, kafka_partitions=2)


async def create(settings, topic, **config):
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_url)
    await admin.start()
    config = {name.replace("_", "."): str(value) for name, value in config.items()}
    answer = await admin.create_topics([NewTopic(settings.kafka_prefix + topic, 2, 1, topic_configs=config)])
    assert not answer.topic_errors[0][1], answer
    await admin.close()


def line(number, *, seconds=NOW, more=b""):
    ip = b"203.0.113.%d" % (number % 200)
    return b"%b %d clicks /t/click campaign_link_id=%d%b iPhone" % (ip, seconds, number, more)


async def move(settings, queue):
    pipeline = Pipeline(settings, lambda _address: NOWHERE, until_empty=True)
    async with asyncio.timeout(60):
        await pipeline.run([queue], asyncio.Event())
    return pipeline


def links(settings):
    return [
        json.loads(value)["link_id"] for value in values(settings.kafka_url, settings.kafka_prefix + "clicks")
    ]


def dead(settings):
    records = read_committed(settings.kafka_url, settings.kafka_prefix + "clicks.dead")
    return [(record.value(), dict(record.headers())) for record in records]


TOO_LARGE = (
    line(700, more=b"&click=" + b"x" * 20_000),
    {"max_message_bytes": 10_000},
    b"MESSAGE_SIZE_TOO_LARGE",
)
TOO_OLD = (
    line(700, seconds=NOW - 30 * 86_400),
    {"message_timestamp_before_max_ms": DAY_MS},
    b"INVALID_TIMESTAMP",
)


@pytest.mark.parametrize(("refused", "config", "reason"), [TOO_LARGE, TOO_OLD])
async def test_of_a_thousand_with_one_refused_all_others_arrive_and_it_is_a_dead_letter(
    redis, settings, delivery, refused, config, reason
):
    settings = settings.model_copy(update={"delivery": delivery})
    await create(settings, "clicks", **config)
    lines = [line(number) for number in range(1000)]
    lines[700] = refused
    await redis.rpush(CLICK_QUEUE, *lines)
    pipeline = await move(settings, Queue(redis, KEYS))
    assert sorted(links(settings)) == sorted(set(range(1000)) - {700})
    ((value, headers),) = dead(settings)
    assert value == refused
    assert headers["reason"] == b"refused by Kafka: " + reason
    assert (headers["step"], headers["topic"]) == (b"publish", b"clicks")
    assert not await redis.exists(KEYS.key("click_invalid"))
    assert pipeline.published == {"clicks": 999, "clicks.dead": 1}


async def test_a_topic_that_takes_only_small_pieces_gets_small_pieces(redis, settings):
    await create(settings, "clicks", max_message_bytes=5_000)
    await redis.rpush(CLICK_QUEUE, *(line(number) for number in range(1000)))
    pipeline = await move(settings, Queue(redis, KEYS))
    assert sorted(links(settings)) == list(range(1000))
    assert not dead(settings)
    assert pipeline._most_bytes["clicks"] <= 5_000


async def test_a_topic_that_gives_records_its_own_time_refuses_none_for_theirs(redis, settings):
    config = {"message_timestamp_type": "LogAppendTime", "message_timestamp_before_max_ms": DAY_MS}
    await create(settings, "clicks", **config)
    await redis.rpush(CLICK_QUEUE, line(1), line(2, seconds=NOW - 30 * 86_400))
    await move(settings, Queue(redis, KEYS))
    assert sorted(links(settings)) == [1, 2]


@pytest.mark.parametrize(
    ("delivery", "dying"),
    [("exactly_once", None), ("exactly_once", DiesBeforeForget), ("at_least_once", None)],
)
async def test_a_dead_letter_that_is_refused_too_stays_in_redis_once(redis, settings, delivery, dying):
    settings = settings.model_copy(update={"delivery": delivery})
    await create(settings, "clicks", max_message_bytes=10_000)
    await create(settings, "clicks.dead", max_message_bytes=10_000)
    refused = TOO_LARGE[0]
    await redis.rpush(CLICK_QUEUE, line(1), refused, b"no event", line(2))
    if dying:
        with pytest.raises(DiedError):
            await move(settings, dying(redis, KEYS))
        assert not await redis.exists(KEYS.key("click_invalid"))
    await move(settings, Queue(redis, KEYS))
    assert await redis.lrange(KEYS.key("click_invalid"), 0, -1) == [refused]
    assert sorted(links(settings)) == [1, 2]
    assert [value for value, _ in dead(settings)] == [b"no event"]


async def test_dead_letters_that_a_compacted_topic_does_not_want_stay_in_redis(redis, settings):
    await create(settings, "clicks.dead", cleanup_policy="compact")
    await redis.rpush(CLICK_QUEUE, line(1), b"no event", b"nor this")
    await move(settings, Queue(redis, KEYS))
    assert links(settings) == [1]
    assert sorted(await redis.lrange(KEYS.key("click_invalid"), 0, -1)) == [b"no event", b"nor this"]


@pytest.mark.parametrize("step", [0, 1, 4])
async def test_a_death_at_any_step_of_the_search_loses_and_doubles_nothing(
    redis, settings, monkeypatch, step
):
    await create(settings, "clicks", max_message_bytes=10_000)
    lines = [line(number) for number in range(50)]
    lines[30] = TOO_LARGE[0]
    await redis.rpush(CLICK_QUEUE, *lines)
    opened = 0

    @asynccontextmanager
    async def dying(*what):
        nonlocal opened
        async with open_publisher(*what) as publisher:
            yield publisher
            opened += 1
            if opened > step:
                raise DiedError

    monkeypatch.setattr(pipeline_module, "open_publisher", dying)
    with pytest.raises(DiedError):
        await move(settings, Queue(redis, KEYS))
    monkeypatch.undo()
    await move(settings, Queue(redis, KEYS))
    assert sorted(links(settings)) == sorted(set(range(50)) - {30})
    assert [value for value, _ in dead(settings)] == [TOO_LARGE[0]]


async def test_the_order_within_a_partition_outlives_the_search(redis, settings):
    await create(settings, "clicks", max_message_bytes=10_000)
    same_visitor = [
        b"203.0.113.9 %d clicks /t/click campaign_link_id=%d iPhone" % (NOW, number) for number in range(200)
    ]
    same_visitor[100] = TOO_LARGE[0]
    await redis.rpush(CLICK_QUEUE, *same_visitor)
    await move(settings, Queue(redis, KEYS))
    assert links(settings) == [number for number in range(200) if number != 100]


async def test_the_search_is_as_short_for_many_as_for_one(redis, settings, monkeypatch, rng):
    attempts = 0
    attempt = Publisher.attempt

    async def counted(self, pieces):
        nonlocal attempts
        attempts += 1
        return await attempt(self, pieces)

    monkeypatch.setattr(Publisher, "attempt", counted)
    await create(settings, "clicks", message_timestamp_before_max_ms=DAY_MS)
    old = set(rng.sample(range(1000), 400))
    lines = [line(number, seconds=NOW - (number in old) * 30 * 86_400) for number in range(1000)]
    await redis.rpush(CLICK_QUEUE, *lines)
    await move(settings, Queue(redis, KEYS))
    assert sorted(links(settings)) == sorted(set(range(1000)) - old)
    assert sorted(value for value, _ in dead(settings)) == sorted(lines[number] for number in old)
    assert attempts <= 30, "for 1,000 pieces of 100 in an attempt, and the few that halve them"


async def test_times_to_come_are_refused_one_by_one(settings):
    await create(settings, "clicks", message_timestamp_after_max_ms=60_000)
    await ensure_topics(settings)
    ahead = {3, 4}
    records = {
        index: Record("clicks", b"key", b"%d" % index, (NOW + (index in ahead) * 86_400) * 1000, [])
        for index in range(8)
    }
    batch = Batch("batch", Destination("", "", ""), [b"line %d" % index for index in range(8)])

    def opened():
        return open_publisher(settings, "queue")

    def letter(raw, reason):
        return Record("clicks.dead", None, raw, NOW * 1000, [("reason", reason.encode())])

    with pytest.raises(RefusedError) as refused:
        async with opened() as publisher:
            await publisher.publish(Outgoing(batch, records))
    outgoing = await sift(refused.value, opened, letter)
    assert {index for index, one in outgoing.records.items() if one.topic == "clicks.dead"} == ahead
    async with opened() as publisher:
        await publisher.publish(outgoing)
    assert values(settings.kafka_url, settings.kafka_prefix + "clicks") == [
        b"0",
        b"1",
        b"2",
        b"5",
        b"6",
        b"7",
    ]


def piece(*indexes, partition=0):
    return Piece("clicks", partition, {index: Record("clicks", b"", b"x", index, []) for index in indexes})


def test_a_refused_piece_is_tried_again_in_halves_and_one_behind_it_as_it_is():
    refused, behind = piece(0, 1, 2), piece(3, 4)
    answers = answers_of([refused, behind], [InvalidRecordError(), OutOfOrderSequenceNumber()])
    assert [answer.verdict for answer in answers] == [Verdict.REFUSED, Verdict.UNTRIED]
    assert judge(answers) == ([piece(0), piece(1, 2), behind], {})


def test_a_record_refused_alone_is_the_one():
    answers = [Answer(piece(5), Verdict.REFUSED, InvalidTimestampError()), Answer(piece(6), Verdict.TAKEN)]
    assert judge(answers) == ([], {5: "refused by Kafka: INVALID_TIMESTAMP"})


@pytest.mark.parametrize("error", [KafkaConnectionError(), ProducerFenced(), OutOfOrderSequenceNumber()])
def test_an_error_that_is_about_no_record_accuses_none(error):
    with pytest.raises(type(error)):
        answers_of([piece(0), piece(1, partition=1)], [error, InvalidRecordError()])
