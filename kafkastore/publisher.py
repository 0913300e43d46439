"""The Kafka end: one transaction per batch, its records and its id together.

The last committed id in the checkpoint topic answers the question whether a batch found in flight is in Kafka
already. After any error a producer is thrown away: the next one with the same transactional id ends whatever
was left open, and fences the old one should it still live.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, UnknownError
from aiokafka.partitioner import murmur2

from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings
from process.logs import log
from process.tasks import Answer, within

CHECKPOINTS: Final = "onward.batches"
"""The topic of checkpoints: key = queue id, value = the last batch that is in Kafka."""

TRANSACTION_TIMEOUT_MS: Final = 15_000
"""How long the broker keeps the transaction of a process that died, and read_committed readers wait, at most."""

PUBLISH_SECONDS: Final = 10.0
"""For one batch; below the broker's time-out, so that we give up first."""

START_SECONDS: Final = 10.0
"""For a producer to start: aiokafka itself would wait without limit for a coordinator that is busy."""

STOP_SECONDS: Final = 2.0
"""For a producer to stop; with the collector's 3 s rule the whole process is gone within 10 s."""

_MAX_BATCH_BYTES: Final = 512 * 1024
"""Of one partition in one request: half of the broker's default limit of 1 MB."""

_POLL_MS: Final = 100

_CHECKPOINT_SPAN: Final = 64
"""Offsets looked at first, from the tail: a transaction of ours takes two there. Then sixteen times as many, …"""


class PublishError(Exception):
    """The batch is not in Kafka as far as is known; this publisher must not be used again."""


class Checkpoint(msgspec.Struct, frozen=True):
    """What the checkpoint topic says of a queue."""

    batch_id: str
    at_ms: int


class Publisher:
    """One producer, for one queue, until the first error."""

    def __init__(self, producer: AIOKafkaProducer, queue_id: str, settings: KafkastoreSettings) -> None:
        self._producer = producer
        self._queue_id = queue_id
        self._settings = settings
        self._transactions = settings.delivery == "exactly_once"
        self._partitions: dict[str, int] = {}

    async def publish(self, batch_id: str, records: Sequence[Record]) -> None:
        """Put a batch into Kafka, whole; raises PublishError, after which only a new publisher knows more."""
        await _within(PUBLISH_SECONDS, self._publish(batch_id, records), "publishing")

    async def last_batch_id(self) -> str | None:
        """Read the last batch of this queue that is in Kafka; raises PublishError when that cannot be told.

        This producer's start has ended the queue's open transaction, so everything of ours that will ever be
        committed stands before the end that is read first. Another queue's open transaction on the same
        partition may hide it for a while: then we wait, and never take "not visible" for "not there".
        """
        if not self._transactions:
            return None
        return await _within(
            TRANSACTION_TIMEOUT_MS / 1000 + START_SECONDS, self._read_checkpoint(), "the checkpoint"
        )

    async def _publish(self, batch_id: str, records: Sequence[Record]) -> None:
        if self._transactions:
            await self._producer.begin_transaction()
        sent = [
            await self._producer.send_batch(batch, topic, partition=partition)
            for topic, partition, batch in await self._batches(records)
        ]
        if self._transactions:
            value = msgspec.json.encode(Checkpoint(batch_id, time.time_ns() // 1_000_000))
            topic = self._topic(CHECKPOINTS)
            partition = await self._partition(topic, self._queue_id.encode())
            sent.append(await self._producer.send(topic, value, self._queue_id.encode(), partition))
        # commit_transaction() would commit although a record was refused: look at every answer first.
        await asyncio.gather(*sent)
        if self._transactions:
            await self._producer.commit_transaction()

    async def _batches(self, records: Sequence[Record]) -> list[tuple[str, int, Any]]:
        """Sort records into batches as they are sent, in their order within each partition."""
        by_partition: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for number, record in enumerate(records):
            topic = self._topic(record.topic)
            partition = (
                number % await self._count(topic)
                if record.key is None
                else await self._partition(topic, record.key)
            )
            by_partition[topic, partition].append(record)
        batches = []
        for (topic, partition), own in by_partition.items():
            batch = self._producer.create_batch()
            for record in own:
                if not _append(batch, record):
                    batches.append((topic, partition, batch))
                    batch = self._producer.create_batch()
                    _append(batch, record)
            batches.append((topic, partition, batch))
        return batches

    async def _partition(self, topic: str, key: bytes) -> int:
        """Give the partition where every Kafka client looks for this key."""
        return int((murmur2(key) & 0x7FFFFFFF) % await self._count(topic))

    async def _count(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = len(await self._producer.partitions_for(topic))
        return self._partitions[topic]

    def _topic(self, name: str) -> str:
        return self._settings.kafka_prefix + name

    async def _read_checkpoint(self) -> str | None:
        topic = self._topic(CHECKPOINTS)
        partition = TopicPartition(topic, await self._partition(topic, self._queue_id.encode()))
        async with _consumer(self._settings, "read_uncommitted", partition) as everything:
            end = (await everything.end_offsets([partition]))[partition]
        async with _consumer(self._settings, "read_committed", partition) as committed:
            begin = (await committed.beginning_offsets([partition]))[partition]
            span = _CHECKPOINT_SPAN
            while True:
                start = max(begin, end - span)
                committed.seek(partition, start)
                last = await self._last_checkpoint(committed, partition, end)
                if last is not None or start == begin:
                    return last
                span *= 16

    async def _last_checkpoint(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
    ) -> str | None:
        last = None
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=_POLL_MS)).get(partition, []):
                if record.key == self._queue_id.encode():
                    last = msgspec.json.decode(record.value, type=Checkpoint).batch_id
        return last


@asynccontextmanager
async def open_publisher(settings: KafkastoreSettings, queue_id: str) -> AsyncIterator[Publisher]:
    """Start a producer for a queue, fencing any before it; raises PublishError."""
    producer = await _start(settings, queue_id)
    try:
        yield Publisher(producer, queue_id, settings)
    except BaseException:
        await _throw_away(producer)
        raise
    stopped = asyncio.ensure_future(producer.stop())
    if not (await asyncio.wait({stopped}, timeout=STOP_SECONDS))[0]:
        stopped.cancel()
        await _throw_away(producer)


async def _start(settings: KafkastoreSettings, queue_id: str) -> AIOKafkaProducer:
    common: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_url,
        "acks": "all",
        "max_batch_size": _MAX_BATCH_BYTES,
        "request_timeout_ms": int(PUBLISH_SECONDS * 1000),
    }
    if settings.delivery == "exactly_once":
        producer = AIOKafkaProducer(
            transactional_id=f"{settings.kafka_prefix}onward-{queue_id}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            **common,
        )
        try:
            return await _started(producer)
        except PublishError as error:
            if isinstance(error.__cause__, UnknownError):
                raise PublishError(
                    "this broker knows no transactions: set DELIVERY=at_least_once for it"
                ) from error
            raise
    try:
        return await _started(AIOKafkaProducer(enable_idempotence=True, **common))
    except PublishError as error:
        if not isinstance(error.__cause__, UnknownError):
            raise
        # Some brokers that speak Kafka's protocol know no idempotent producer: a retried request may double there.
        log.warning("broker_without_idempotence", cure="use Apache Kafka where every event counts")
        return await _started(AIOKafkaProducer(**common))


async def _started(producer: AIOKafkaProducer) -> AIOKafkaProducer:
    try:
        await _within(START_SECONDS, producer.start(), "starting the producer")
    except BaseException:
        await _throw_away(producer)
        raise
    return producer


async def _throw_away(producer: AIOKafkaProducer) -> None:
    """End a producer without flushing it: stop() would wait for brokers that are down, without limit."""
    producer._closed = True  # noqa: SLF001 (aiokafka has no other way to end without a flush, #1101)
    sender = producer._sender  # noqa: SLF001
    task = sender.sender_task
    if task is not None:
        task.cancel()
    await producer.client.close()
    if task is not None:
        await asyncio.wait({task}, timeout=STOP_SECONDS)


async def _within(seconds: float, step: Coroutine[Any, Any, Answer], what: str) -> Answer:
    """Wait for a step of aiokafka's, a stated time at most; any error of Kafka's becomes a PublishError."""
    try:
        return await within(seconds, step)
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise PublishError(f"{what} failed: {error!r}") from error


@asynccontextmanager
async def _consumer(
    settings: KafkastoreSettings, isolation_level: str, partition: TopicPartition
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_url,
        isolation_level=isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="none",
    )
    await consumer.start()
    try:
        consumer.assign([partition])
        yield consumer
    finally:
        await consumer.stop()


def _append(batch: Any, record: Record) -> bool:
    """Add a record; False when the batch is full."""
    return (
        batch.append(
            key=record.key, value=record.value, timestamp=record.timestamp_ms, headers=record.headers
        )
        is not None
    )
