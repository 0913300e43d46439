"""What a consumer has done and how it is: counted here, read by `/metrics` and `/readyz`."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition

from consumers.sink import Batch
from process.logs import log
from process.metrics import Family, Sample, samples_of_ourselves
from process.readiness import Readiness

FAMILIES: Final = (
    Family("onward_consumer_records_total", "counter", "Records whose outcome is in the sink, by topic"),
    Family(
        "onward_consumer_dead_letters_total", "counter", "Those of them that became dead letters, by topic"
    ),
    Family(
        "onward_consumer_failed_writes_total",
        "counter",
        "Batches that were not written: the sink was away, refused something, or another member had moved on",
    ),
    Family(
        "onward_consumer_lag_records", "gauge", "Records that wait, by topic and partition of this member"
    ),
    Family("onward_consumer_partitions", "gauge", "Partitions this member reads"),
    Family(
        "onward_consumer_partitions_stopped", "gauge", "Those of them that need a person: records are missing"
    ),
    Family("onward_consumer_paused", "gauge", "1 while Kafka or the sink is away"),
    Family(
        "onward_consumer_attributions_total", "counter", "Installs that found their click, by what matched"
    ),
    Family(
        "onward_consumer_unattributed_total", "counter", "Installs that were given up: no click came in time"
    ),
    Family(
        "onward_consumer_unpublished_records",
        "gauge",
        "Records that wait in the outbox for Kafka to take them",
    ),
)

_CAUGHT_UP_RECORDS: Final = 20_000
"""Who lags by less than a full batch of the loop's has read everything but what just came."""

_SAY_AGAIN_SECONDS: Final = 60.0
"""Between two log lines about the same trouble."""


@dataclass(slots=True)
class Progress:
    """Of one consumer, since its start."""

    consumer: str
    prefix: str = ""
    """That topics have in Kafka, and not here."""
    records: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    partitions: int = 0
    lag: dict[TopicPartition, int] = field(default_factory=dict)
    """Of the partitions of which a broker has told where they end."""
    stopped: set[TopicPartition] = field(default_factory=set)
    trouble: str | None = "not connected yet"
    """Why nothing is read now."""
    stopping: bool = False
    attributed: Counter[str] = field(default_factory=Counter)
    """By what an install was matched by."""
    unattributed: int = 0
    unpublished: int | None = None
    """Of the outbox, where this member publishes it."""
    unpublished_why: str = ""
    """What keeps the outbox from Kafka."""
    _why: str = ""
    _said_at: float = 0.0

    def written(self, batch: Batch, dead: Sequence[tuple[Any, str]]) -> None:
        """Count a batch whose outcome is in the sink, and the records of it that are dead letters, with reasons."""
        for span in batch.spans:
            self.records[self.topic_of(span.partition)] += len(span.records)
        for record, _ in dead:
            self.dead[record.topic.removeprefix(self.prefix)] += 1
        if dead:
            log.error("dead_letters", consumer=self.consumer, records=len(dead), first=dead[0][1])

    def waits(self, trouble: str, why: str) -> None:
        """Say why nothing is read, when that changes, and once a minute as long as it does not."""
        self.trouble = trouble
        if why != self._why or time.monotonic() - self._said_at > _SAY_AGAIN_SECONDS:
            log.warning("consumer_waits", consumer=self.consumer, why=why)
            self._why, self._said_at = why, time.monotonic()

    def goes_on(self) -> None:
        """Say so, if it waited."""
        self.trouble = None
        if self._why:
            log.warning("consumer_goes_on", consumer=self.consumer)
            self._why = ""

    def not_published(self, why: str) -> None:
        """Say why the outbox does not get to Kafka, when that changes."""
        self.failed["publish"] += 1
        if why != self.unpublished_why:
            self.unpublished_why = why
            log.warning("outbox_waits", consumer=self.consumer, why=why)

    def published(self) -> None:
        """Note that the outbox is empty."""
        self.unpublished_why = ""

    @property
    def caught_up(self) -> bool:
        """Whether nothing much waits in any of this member's partitions."""
        reading = self.partitions - len(self.stopped)
        return reading > 0 and len(self.lag) >= reading and sum(self.lag.values()) < _CAUGHT_UP_RECORDS

    def samples(self) -> Iterator[Sample]:
        """Give everything there is to know."""
        ours = {"consumer": self.consumer}
        for family, counter in (
            ("onward_consumer_records_total", self.records),
            ("onward_consumer_dead_letters_total", self.dead),
        ):
            for topic, count in counter.items():
                yield Sample(family, count, {**ours, "topic": topic})
        for reason, count in self.failed.items():
            yield Sample("onward_consumer_failed_writes_total", count, {**ours, "reason": reason})
        for partition, lag in self.lag.items():
            labels = {"topic": self.topic_of(partition), "partition": str(partition.partition)}
            yield Sample("onward_consumer_lag_records", lag, {**ours, **labels})
        yield Sample("onward_consumer_partitions", self.partitions, ours)
        yield Sample("onward_consumer_partitions_stopped", len(self.stopped), ours)
        yield Sample("onward_consumer_paused", float(self.trouble is not None), ours)
        for matched_by, count in self.attributed.items():
            yield Sample("onward_consumer_attributions_total", count, {**ours, "matched_by": matched_by})
        if self.unattributed:
            yield Sample("onward_consumer_unattributed_total", self.unattributed, ours)
        if self.unpublished is not None:
            yield Sample("onward_consumer_unpublished_records", self.unpublished, ours)
        yield from samples_of_ourselves()

    def readiness(self) -> Readiness:
        """Tell whether it works, and why not."""
        against = (["stopping"] if self.stopping else []) + ([self.trouble] if self.trouble else [])
        stopped = [
            f"{self.topic_of(partition)}/{partition.partition} stopped: records are missing"
            for partition in sorted(self.stopped)
        ]
        waits = ["the outbox waits for Kafka"] if self.unpublished_why else []
        return Readiness(tuple(against), (*stopped, *waits))

    def topic_of(self, partition: TopicPartition) -> str:
        """Give a partition's topic without the prefix."""
        topic: str = partition.topic
        return topic.removeprefix(self.prefix)
