"""Checkpoints: which batch of a queue was the last to arrive in Kafka, said by Kafka itself.

A checkpoint is a record in the transaction of its batch. Whoever owns a queue next reads the last committed one,
from the tail backwards, and knows by its id whether the batch found in flight is there.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from kafkastore.connection import connection, start
from kafkastore.settings import KafkastoreSettings

CHECKPOINTS: Final = "onward.batches"
"""The topic of checkpoints: key = queue id."""

_START_SECONDS: Final = 10.0
_POLL_MS: Final = 100

_SPAN: Final = 64
"""Offsets looked at first, from the tail: a transaction of ours takes two there. Then sixteen times as many, …"""


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a checkpoint."""

    batch_id: str
    at_ms: int
    invalid: tuple[int, ...] = ()
    """Lines of the batch, by index, that Kafka takes in no form: whoever forgets the batch keeps them in Redis."""


async def last_checkpoint(
    settings: KafkastoreSettings, queue_id: str, partition: TopicPartition
) -> Checkpoint | None:
    """Read the last committed checkpoint of a queue; raises KafkaError, OSError or PublishError.

    The queue's producer has been started before, which ended the queue's open transaction: everything of ours that
    will ever be committed stands before the end that is read first. Another queue's open transaction on the same
    partition may hide it for a while: then we wait, and never take "not visible" for "not there".
    """
    async with _consumer(settings, "read_uncommitted", partition) as everything:
        end = (await everything.end_offsets([partition]))[partition]
    async with _consumer(settings, "read_committed", partition) as committed:
        begin = (await committed.beginning_offsets([partition]))[partition]
        span = _SPAN
        while True:
            first = max(begin, end - span)
            committed.seek(partition, first)
            last = await _last_of(queue_id.encode(), committed, partition, end)
            if last is not None or first == begin:
                return last
            span *= 16


async def _last_of(
    key: bytes, consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> Checkpoint | None:
    last = None
    while await consumer.position(partition) < end:
        for record in (await consumer.getmany(partition, timeout_ms=_POLL_MS)).get(partition, []):
            if record.key == key:
                last = msgspec.json.decode(record.value, type=Checkpoint)
    return last


@asynccontextmanager
async def _consumer(
    settings: KafkastoreSettings, isolation_level: str, partition: TopicPartition
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **connection(settings),
        isolation_level=isolation_level,
        enable_auto_commit=False,
        auto_offset_reset="none",
    )
    try:
        await start(consumer, settings, _START_SECONDS)
        consumer.assign([partition])
        yield consumer
    finally:
        await consumer.stop()
