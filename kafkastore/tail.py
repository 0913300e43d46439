"""Follow the topics: what is stored, as it comes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from kafkastore.connection import PublishError, connection, start
from kafkastore.settings import KafkastoreSettings
from kafkastore.stored import Stored
from kafkastore.topics import existing_topics, partitions_by_topic, topics_of
from process.logs import log
from process.run import CannotStartError
from process.tasks import end, within

_POLL_MS: Final = 200
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0

_TOPICS_MS: Final = 200
"""Between looks for topics that are not there yet: they are created when a kafkastore first runs."""


async def tail(
    settings: KafkastoreSettings, topics: Sequence[str] | None, stop: asyncio.Event, *, from_beginning: bool
) -> AsyncIterator[Stored]:
    """Give what is stored in `topics` (None: all of ours) until told to stop; raises CannotStartError."""
    consumer = _consumer(settings)
    try:
        await start(consumer, settings, _START_SECONDS)
        await _place(
            consumer,
            settings,
            [settings.kafka_prefix + topic for topic in topics or topics_of(settings)],
            stop,
            from_beginning=from_beginning,
        )
        log.info("tail_started", kafka=settings.kafka_url, partitions=len(consumer.assignment()))
        while not stop.is_set():
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    topic = record.topic.removeprefix(settings.kafka_prefix)
                    value = None if topic.endswith(".dead") else json.loads(record.value)
                    yield Stored(topic, record.timestamp, value, record.value, dict(record.headers))
    except PublishError as error:
        raise CannotStartError(f"{error}.") from None
    finally:
        # A consumer whose broker is gone may not find its way to the end by itself.
        await end({asyncio.create_task(consumer.stop())}, after=_STOP_SECONDS)


def _consumer(settings: KafkastoreSettings) -> AIOKafkaConsumer:
    try:
        reached = connection(settings)
    except PublishError as error:
        raise CannotStartError(f"{error}.") from None
    return AIOKafkaConsumer(
        **reached,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=_TOPICS_MS,
    )


async def _place(
    consumer: AIOKafkaConsumer,
    settings: KafkastoreSettings,
    topics: Sequence[str],
    stop: asyncio.Event,
    *,
    from_beginning: bool,
) -> None:
    """Stand at the beginning of every partition, or where it ends now; wait for topics to be there.

    What a topic holds that was not there yet came after we began. A consumer that is told nothing begins at the
    beginning by itself; seek_to_beginning() waits for a broker that is away without limit.
    """
    ends = {} if from_beginning else await _ends(consumer, settings, topics)
    await _until_there(settings, topics, stop)
    consumer.subscribe(topics)
    while set(topics) != {partition.topic for partition in consumer.assignment()}:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOPICS_MS / 1000):
                await stop.wait()
                return
    for partition in ends.keys() & consumer.assignment():
        consumer.seek(partition, ends[partition])


async def _ends(
    consumer: AIOKafkaConsumer, settings: KafkastoreSettings, topics: Sequence[str]
) -> dict[TopicPartition, int]:
    """Tell where the partitions end that are there."""
    counts = await partitions_by_topic(settings)
    there = [TopicPartition(topic, number) for topic in topics for number in range(counts.get(topic, 0))]
    try:
        return dict(await within(_START_SECONDS, consumer.end_offsets(there))) if there else {}
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise PublishError(f"Kafka does not say where its topics end ({error!r})") from error


async def _until_there(settings: KafkastoreSettings, topics: Sequence[str], stop: asyncio.Event) -> None:
    """Wait until the topics exist. To subscribe to one that does not would create it on many brokers."""
    said = False
    while not stop.is_set() and (missing := set(topics) - await existing_topics(settings)):
        if not said:
            log.info("tail_waits_for_topics", missing=sorted(missing))
            said = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOPICS_MS / 1000):
                await stop.wait()
