"""What a process counts, as Prometheus reads it (text format 0.0.4, by prometheus_client).

Samples are plain values, so that they can be handed from one process to another before they are rendered. Every
label has a bounded set of values: routes, topics, reasons and queues of ours, never anything a stranger sends.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

import msgspec
from prometheus_client import ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

BUCKETS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper ends of a histogram's buckets; what is slower is in the last one, `+Inf`."""

_OURSELVES: Final = ProcessCollector(registry=None)
"""Memory, CPU time, open files and start time, as every Prometheus client names them."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name as queries spell it, its kind, and its meaning."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str


class Sample(msgspec.Struct, frozen=True):
    """One value of a family; of a histogram there are several (`_bucket`, `_sum`, `_count`)."""

    family: str
    value: float
    labels: dict[str, str] = {}
    suffix: str = ""


@dataclass(slots=True)
class Durations:
    """How long something took, counted in buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    total_seconds: float = 0.0

    def add(self, seconds: float, number: int = 1) -> None:
        """Count some that took as long as one another."""
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += number
        self.total_seconds += seconds * number

    def samples(self, family: str, labels: dict[str, str]) -> Iterator[Sample]:
        """Give the samples of a histogram."""
        names = (*map(str, BUCKETS_SECONDS), "+Inf")
        for name, count in zip(names, accumulate(self.counts), strict=True):
            yield Sample(family, count, {**labels, "le": name}, "_bucket")
        yield Sample(family, sum(self.counts), labels, "_count")
        yield Sample(family, self.total_seconds, labels, "_sum")


def samples_of_ourselves() -> Iterator[Sample]:
    """Give what the system says of this process."""
    for metric in _OURSELVES.collect():
        for sample in metric.samples:
            yield Sample(sample.name, sample.value)


def exposition(families: Sequence[Family], samples: Iterable[Sample]) -> bytes:
    """Render samples; every one belongs to one of `families` or to those of `samples_of_ourselves`."""
    metrics = {family.name: _metric(family) for family in families}
    for known in _OURSELVES.collect():
        for own in known.samples:
            metrics[own.name] = Metric(known.name, known.documentation, known.type)
    for sample in samples:
        metrics[sample.family].add_sample(sample.family + sample.suffix, sample.labels, sample.value)
    return generate_latest(_Rendered([metric for metric in metrics.values() if metric.samples]))


def _metric(family: Family) -> Metric:
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    return Metric(name, family.meaning, family.kind)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """What generate_latest wants of a registry."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        return self.metrics
