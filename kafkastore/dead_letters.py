"""Where dead letters lie: those of a topic's partitions behind their marks, and the lines in `click_invalid`.

A mark names the last letter that was redriven or dropped, by its offset and by what it is: where another record
stands at that offset, the topic is not the one the mark was made in. Every read is `read_committed`, goes from a
mark up to the end that the partition had when it was opened, and holds about a megabyte at a time.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from kafkastore.connection import connection, start
from kafkastore.publisher import START_SECONDS, STOP_SECONDS
from kafkastore.settings import KafkastoreSettings
from process.tasks import end

DEAD: Final = ".dead"
"""What the topic of dead letters has behind the name of the topic they were meant for."""

_POLL_MS: Final = 200

_FETCH_WAIT_MS: Final = 10
"""For records to come: what we read is there. Other questions wait behind a fetch: 4 s a partition with 500."""

_SILENCE_SECONDS: Final = 15.0
"""Without a record where there must be one: Kafka is away. A new leader is elected in less."""

_MOST_TEXT: Final = 200
"""Characters of a reason or a step: ours are shorter, and others may write to these topics too."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last letter of a partition that was redriven or dropped."""

    offset: int
    fingerprint: str

    def encode(self) -> str:
        """Give it as Redis keeps it."""
        return f"{self.offset} {self.fingerprint}"

    @staticmethod
    def decode(text: bytes) -> "Mark":
        """Read what `encode` gave."""
        offset, fingerprint = text.decode().split(" ")
        return Mark(int(offset), fingerprint)


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, and where it lies."""

    topic: str
    """Without the prefix: `clicks.dead`; or `click_invalid`."""
    partition: int
    """Of `click_invalid`: which queue's, counted over all Redis."""
    offset: int
    """Of `click_invalid`: its place in the list when it was looked at."""
    at_ms: int | None
    """When it died; not known in `click_invalid`."""
    step: str
    reason: str
    line: bytes
    mark: Mark | None = None
    """The mark that says that everything up to this letter is done; None in `click_invalid`, which has no marks."""


@dataclass(frozen=True, slots=True)
class Span:
    """The letters of a partition behind its mark."""

    topic: str
    """Without the prefix."""
    partition: TopicPartition
    begin: int
    end: int
    mark: Mark | None = None
    recreated: bool = False
    """The mark is of another topic of the same name: this one was made later, and nothing of it was ever redriven."""
    removed: bool = False
    """Kafka's retention has removed records behind the mark: letters that nobody redrove or dropped may be gone."""

    @property
    def mark_of_removed(self) -> Mark:
        """The mark that says that everything removed is known: it names no letter, and no letter is like it."""
        return Mark(self.begin - 1, "-")


@dataclass(frozen=True, slots=True)
class _Cluster:
    id: str
    partitions: dict[str, int]
    """How many each topic has, by its whole name."""


class DeadTopics:
    """The topics of dead letters, for reading."""

    def __init__(self, consumer: AIOKafkaConsumer, prefix: str, cluster: _Cluster) -> None:
        self._consumer = consumer
        self._prefix = prefix
        self._partitions = cluster.partitions
        self.cluster_id = cluster.id

    @property
    def names(self) -> list[str]:
        """The topics that are there, without the prefix; they may be those of others, too."""
        ours = (name for name in self._partitions if name.startswith(self._prefix) and name.endswith(DEAD))
        return sorted(name.removeprefix(self._prefix) for name in ours)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Name the partitions of a topic; none where it is not there."""
        name = self._prefix + topic
        return [TopicPartition(name, number) for number in range(self._partitions.get(name, 0))]

    async def span(self, topic: str, partition: TopicPartition, mark: Mark | None) -> Span:
        """Find what a partition holds behind its mark. Raises KafkaError, TimeoutError."""
        begin = (await self._consumer.beginning_offsets([partition]))[partition]
        end_ = (await self._consumer.end_offsets([partition]))[partition]
        if mark is None:
            return Span(topic, partition, begin, end_, removed=begin > 0)
        if begin > mark.offset:
            # What follows a letter at once is no letter, but the end of its transaction.
            return Span(topic, partition, begin, end_, mark, removed=begin > mark.offset + 2)
        async for record in self._records(partition, mark.offset, min(end_, mark.offset + 1)):
            if _mark_of(record) == mark:
                return Span(topic, partition, mark.offset + 1, end_, mark)
        return Span(topic, partition, begin, end_, mark, recreated=True)

    async def letters(self, span: Span) -> AsyncIterator[Letter]:
        """Give the letters of a partition behind its mark, the oldest first. Raises KafkaError, TimeoutError."""
        async for record in self._records(span.partition, span.begin, span.end):
            said = {name: value.decode("utf-8", "replace") for name, value in record.headers if value}
            yield Letter(
                topic=span.topic,
                partition=record.partition,
                offset=record.offset,
                at_ms=record.timestamp,
                step=said.get("step", "?")[:_MOST_TEXT],
                reason=said.get("reason", "no reason given")[:_MOST_TEXT],
                line=record.value or b"",
                mark=_mark_of(record),
            )

    async def _records(self, partition: TopicPartition, begin: int, until: int) -> AsyncIterator[Any]:
        if begin >= until:
            return
        self._consumer.assign([partition])
        self._consumer.seek(partition, begin)
        position, moved_at = begin, time.monotonic()
        while position < until:
            # One partition at a time, fetched in pieces of 1 MB: that is what memory holds.
            for record in (await self._consumer.getmany(partition, timeout_ms=_POLL_MS)).get(partition, []):
                if record.offset < until:
                    yield record
            # The position moves over what is no record, too: ends of transactions, and what they took back.
            before, position = position, await self._consumer.position(partition)
            if position > before:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > _SILENCE_SECONDS:
                raise TimeoutError(f"nothing came of {partition.topic} for {_SILENCE_SECONDS:g} s")


@asynccontextmanager
async def open_dead_topics(settings: KafkastoreSettings) -> AsyncIterator[DeadTopics]:
    """Connect for reading; creates no topic. Raises PublishError, KafkaError, OSError."""
    cluster = await _cluster(settings)
    consumer = AIOKafkaConsumer(
        **connection(settings),
        isolation_level="read_committed",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        enable_auto_commit=False,
        auto_offset_reset="none",  # what retention removes under our eyes is an error, not a jump
    )
    try:
        await start(consumer, settings, START_SECONDS)
        yield DeadTopics(consumer, settings.kafka_prefix, cluster)
    finally:
        # A consumer whose broker is gone may not find its way to the end by itself.
        await end({asyncio.create_task(consumer.stop())}, after=STOP_SECONDS)


async def _cluster(settings: KafkastoreSettings) -> _Cluster:
    """Ask for the cluster's id, and for all topics with their partitions: to name one would create it."""
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=int(START_SECONDS * 1000))
    try:
        await start(admin, settings, START_SECONDS)
        topics = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        cluster_id = (await admin.describe_cluster())["cluster_id"]
        return _Cluster(cluster_id or "unnamed", topics)  # demo brokers may have none
    finally:
        await admin.close()


def _mark_of(record: Any) -> Mark:
    named = b"%d %b" % (record.timestamp, record.value or b"")
    return Mark(record.offset, hashlib.blake2b(named, digest_size=8).hexdigest())
