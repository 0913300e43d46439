"""How many of everything 10² to 10⁶ clicks a second need: `.venv/bin/python bench/capacity.py`.

Prints the tables of docs/benchmarks.md from var/bench.json, or from another file of `make bench`. What is bought and
not measured here, and how full anything may be, stands below as constants.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from math import ceil
from pathlib import Path

from table import Row, kept

LATEST = Path(__file__).parent.parent / "var" / "bench.json"

SHARE = 0.6
"""Of a core, at the busiest hour: behind four fifths waits grow, and one of three may be away."""
OUTAGE_SECONDS = 3600
"""Without Kafka, which a Redis must hold."""
REDIS_BYTES = 64e9
NETWORK_BYTES = 125e6
"""A second: one gigabit, of a Redis or a broker."""
COPIES = 3
READERS = 2
"""Consumers that read every record."""
PARTITIONS = 6
"""Of a topic, unless set."""
PRICE = 25
"""Dollars a month for a dyno of one core."""
MONTH_SECONDS = 30.4 * 86_400
DECADES = (100, 1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one click takes of everything."""

    collector_us: float
    visitor_us: float
    """Of a collector with TLS, to which each visitor comes on a connection of his own."""
    redis_us: float
    """To be shipped, claimed and forgotten."""
    kafkastore_us: float
    consumer_us: float
    queue_rate: float
    """Events a second by the clock: a queue has one batch in flight."""
    line_bytes: float
    value_bytes: float


@dataclass(frozen=True, slots=True)
class Needs:
    """How many of everything there must be."""

    collectors: int
    """Behind a balancer, which keeps its connections."""
    or_with_tls: int
    """To which visitors come themselves."""
    redis: int
    queues: int
    kafkastores: int
    brokers: int
    consumers: int
    partitions: int

    @property
    def cores(self) -> int:
        """Of our processes: collectors behind a balancer, kafkastores and the members of one consumer."""
        return self.collectors + self.kafkastores + self.consumers


def costs_of(parts: Mapping[str, Sequence[Row]]) -> Costs:
    """Take the rows that count from all that was measured."""
    found = {row.name: row.value for some in parts.values() for row in some}
    return Costs(
        collector_us=found["a click, by id"],
        visitor_us=found["a new visitor: a click, TLS"],
        redis_us=found["Redis, a click shipped"] + found["Redis, moved only, exactly_once"],
        kafkastore_us=found["enriched, JSON, exactly_once"],
        consumer_us=found["consumer: totals into PostgreSQL"],
        queue_rate=found["enriched, JSON, exactly_once, a second"],
        line_bytes=found["size: a click's line"],
        value_bytes=found["size: its value, JSON"],
    )


def limits(costs: Costs) -> dict[str, float]:
    """Give the clicks a second at which one of each is full."""
    member = SHARE * 1e6 / costs.consumer_us
    return {
        "collector": SHARE * 1e6 / costs.collector_us,
        "a collector with TLS, each visitor new": SHARE * 1e6 / costs.visitor_us,
        "kafkastore": SHARE * 1e6 / costs.kafkastore_us,
        "queue": SHARE * costs.queue_rate,
        "member of a consumer": member,
        f"{PARTITIONS} partitions, a member each": PARTITIONS * member,
        "Redis: its core": SHARE * 1e6 / costs.redis_us,
        f"Redis: an hour without Kafka in {REDIS_BYTES / 1e9:.0f} GB": REDIS_BYTES
        / OUTAGE_SECONDS
        / costs.line_bytes,
        "Redis: one gigabit, each line in and out": NETWORK_BYTES / costs.line_bytes,
        f"broker: one gigabit out, {COPIES} copies, {READERS} readers": NETWORK_BYTES
        / (COPIES - 1 + READERS)
        / costs.value_bytes,
    }


def needs(clicks: float, costs: Costs) -> Needs:
    """Give what so many clicks a second need."""
    full = limits(costs)

    def many(what: str) -> int:
        return max(ceil(clicks / one) for name, one in full.items() if name.startswith(what))

    redis, consumers = many("Redis"), many("member of a consumer")
    kafkastores = many("kafkastore")
    return Needs(
        collectors=many("collector"),
        or_with_tls=many("a collector with TLS"),
        redis=redis,
        queues=max(many("queue"), kafkastores, redis),
        kafkastores=kafkastores,
        brokers=max(many("broker"), COPIES),
        consumers=consumers,
        partitions=max(PARTITIONS, consumers),
    )


def capacity(costs: Costs) -> str:
    """Give the table of needs."""
    named = (name.replace("_", " ").replace("tls", "TLS") for name in Needs.__dataclass_fields__)
    head = ("clicks a second", *named, "cores", "¢ a million clicks")
    return _table(
        head,
        (
            (f"{clicks:,}", *map(str, astuple(one)), str(one.cores), f"{_cents(clicks, one.cores):.2g}")
            for clicks, one in ((clicks, needs(clicks, costs)) for clicks in DECADES)
        ),
    )


def order(costs: Costs) -> str:
    """Give the table of what is full when there is one of it, the first first."""
    full = sorted(limits(costs).items(), key=lambda limit: limit[1])
    return _table(
        ("one of", "is full at clicks a second", "million clicks a day"),
        ((name, _round(clicks), _round(clicks * 86_400 / 1e6)) for name, clicks in full),
    )


def _cents(clicks: float, cores: int) -> float:
    """Give the price of a million clicks that come evenly all month."""
    return cores * PRICE * 100 / (clicks * MONTH_SECONDS / 1e6)


def _table(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *map(tuple, body)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _round(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else LATEST
    costs = costs_of(kept(path))
    print(capacity(costs), "\n", order(costs), sep="\n")


if __name__ == "__main__":
    main()
