"""What Kafka has of a range of time: committed records, from the first one in the range to where Kafka ends now."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers.identity import Range
from kafkastore.connection import PublishError, connection, start
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import partitions_by_topic
from process.tasks import end

OnProgress = Callable[[int, int], object]
"""Told how much of what is done."""

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0
_POLL_MS: Final = 200

_SILENCE_SECONDS: Final = 30.0
"""Without anything read while there is something to read."""

_PARTITION_BYTES: Final = 4 * 1024 * 1024
_BROKER_BYTES: Final = 16 * 1024 * 1024
"""What aiokafka holds at most."""


async def kafka_records(
    settings: KafkastoreSettings, topics: Sequence[str], when: Range, on_progress: OnProgress
) -> AsyncIterator[list[Any]]:
    """Give records of topics (without the prefix) by and by. Raises PublishError, KafkaError.

    Times in a partition are in no order: what came late stands far behind, so everything is read up to the end.
    """
    there = await partitions_by_topic(
        settings
    )  # to ask for one that is not there would create it on many brokers
    names = [settings.kafka_prefix + topic for topic in topics]
    partitions = [TopicPartition(name, number) for name in names for number in range(there.get(name, 0))]
    async with _consumer(settings) as consumer:
        # None is also what a broker (4.2) says of a partition whose older records were deleted one by one.
        newer = await consumer.offsets_for_times(dict.fromkeys(partitions, when.begin_ms))
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        begins = {one: beginnings[one] if newer[one] is None else newer[one].offset for one in partitions}
        left = {one: ends[one] for one in partitions if begins[one] < ends[one]}
        positions = {partition: begins[partition] for partition in left}
        first = sum(positions.values())
        whole = sum(left.values()) - first
        consumer.assign(list(left))
        for partition, offset in positions.items():
            consumer.seek(partition, offset)
        moved_at = time.monotonic()
        while any(positions[partition] < left[partition] for partition in left):
            found = await consumer.getmany(timeout_ms=_POLL_MS)
            yield [
                record
                for partition, records in found.items()
                for record in records
                if record.offset < left[partition] and when.begin_ms <= record.timestamp < when.end_ms
            ]
            for partition, before in positions.items():
                positions[partition] = min(await consumer.position(partition), left[partition])
                if positions[partition] != before:
                    moved_at = time.monotonic()
            if time.monotonic() - moved_at > _SILENCE_SECONDS:
                raise PublishError(f"Kafka gave nothing for {_SILENCE_SECONDS:g} s")
            on_progress(sum(positions.values()) - first, whole)


@asynccontextmanager
async def _consumer(settings: KafkastoreSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **connection(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=_PARTITION_BYTES,
        fetch_max_bytes=_BROKER_BYTES,
    )
    try:
        await start(consumer, settings, _START_SECONDS)
        yield consumer
    finally:
        # A consumer whose broker is gone may not find its way to the end by itself.
        await end({asyncio.create_task(consumer.stop())}, after=_STOP_SECONDS)
