"""Where a consumer's output lands, and with it the consumer's position: what the loop asks of a sink."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from aiokafka import TopicPartition


@dataclass(frozen=True, slots=True)
class Span:
    """What lies between two positions of a partition."""

    partition: TopicPartition
    """With the prefix."""
    begin: int
    """The sink's position before: the offset of the next record, as far as the sink knows."""
    end: int
    """The sink's position after; what is no record, such as the end of a transaction, is passed, too."""
    records: Sequence[Any]
    """aiokafka's ConsumerRecords, in order; there may be none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written at once: a span of each of some partitions."""

    cluster_id: str
    """Offsets mean something in one cluster only."""
    spans: Sequence[Span]

    @property
    def size(self) -> int:
        """How many records there are."""
        return sum(len(span.records) for span in self.spans)

    def halves(self) -> tuple["Batch", "Batch"]:
        """Cut a batch of several records in two, without a gap between."""
        if len(self.spans) > 1:
            middle = len(self.spans) // 2
            return Batch(self.cluster_id, self.spans[:middle]), Batch(self.cluster_id, self.spans[middle:])
        (span,) = self.spans
        middle = len(span.records) // 2
        between = span.records[middle].offset
        return (
            Batch(self.cluster_id, [Span(span.partition, span.begin, between, span.records[:middle])]),
            Batch(self.cluster_id, [Span(span.partition, between, span.end, span.records[middle:])]),
        )


class SinkAwayError(Exception):
    """The sink takes nothing now; the sentence says why. Nobody knows whether the last batch was written."""


class MovedError(Exception):
    """The sink's position is not where this batch begins: another member wrote. Nothing of the batch was."""


class RefusedError(Exception):
    """The sink does not take something in this batch; the sentence says why. Nothing of it was written."""


class Sink(Protocol):
    """What takes batches. Each method may raise SinkAwayError."""

    @property
    def topics(self) -> Sequence[str]:
        """What it wants to read, without the prefix."""
        ...

    @property
    def rest_seconds(self) -> float:
        """How long it wants to wait after a batch when less than another full one is there."""
        ...

    async def positions(
        self, cluster_id: str, beginnings: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Give the offset of the next record for each partition; for one never read, its beginning."""
        ...

    async def write(self, batch: Batch) -> Sequence[tuple[Any, str]]:
        """Write a batch and its positions, whole or not at all; give the records that are dead letters, and why.

        Raises MovedError, RefusedError.
        """
        ...

    async def bury(self, batch: Batch, reason: str) -> None:
        """Write a batch of one record, that was refused, as a dead letter. Raises MovedError."""
        ...


@runtime_checkable
class Gathers(Protocol):
    """A sink that keeps batches for a while: a batch that it took is in it only when it has settled."""

    async def settle(self, *, everything: bool) -> None:
        """Write what is due, or everything. Raises SinkAwayError, MovedError."""
        ...
