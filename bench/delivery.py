"""Events of `kafkastore run`, from Redis to Apache Kafka, one core: part of `make bench`.

The kafkastore on one core, Redis and the broker on another. A queue of lines is filled and moved, row by row in
turns, beside ready records published by aiokafka alone. CPU µs is the process's own time an event; where events a
second are fewer than it allows, the broker or the wait between batches is the limit.
"""

import itertools
from functools import partial

from move import Move, Moved, fill, moved
from rig import need
from shared import Effort, Shared
from table import Row, in_turns, rows
from visitors import Kind, lines

from kafkastore.queue import MOST_LINES

BARE = "bare aiokafka, ready records"
REALISTIC = "enriched, JSON, exactly_once"
AT_LEAST_ONCE = {"DELIVERY": "at_least_once"}
TEXT = {"VALUE_FORMAT": "adtekio"}
ROWS = {
    BARE: ("bare", "realistic", {}),
    "moved only, exactly_once": ("moved", "realistic", {}),
    "moved only, at_least_once": ("moved", "realistic", AT_LEAST_ONCE),
    REALISTIC: ("enriched", "realistic", {}),
    "enriched, JSON, at_least_once": ("enriched", "realistic", AT_LEAST_ONCE),
    "enriched, text, exactly_once": ("enriched", "realistic", TEXT),
    "enriched, JSON, exactly_once, every place new": ("enriched", "new places", {}),
    "enriched, JSON, exactly_once, every place and agent new": ("enriched", "all new", {}),
}
QUICK = (BARE, "moved only, exactly_once", REALISTIC)
PARTITIONS = 6


def measure(shared: Shared) -> list[Row]:
    """Give every row, in the processor's time of each event and in events a second."""
    need(taskset="util-linux")
    effort = shared.effort
    before = max(effort.agents, MOST_LINES)
    wanted = {name: row for name, row in ROWS.items() if not effort.quick or name in QUICK}
    prepared = {kind: backlog(kind, before, effort) for kind in {kind for _, kind, _ in wanted.values()}}

    def one(name: str) -> Moved:
        how, kind, more = wanted[name]
        environ = {
            "REDIS_URL": shared.redis.url,
            "KAFKA_URL": shared.kafka.url,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "KAFKA_PREFIX": f"delivery{list(ROWS).index(name)}.",
        }
        if how != "bare":
            fill(shared.redis, prepared[kind])
        return moved(Move(how, environ | more, before, effort.events))[0]

    found = in_turns({name: partial(one, name) for name in wanted}, effort.few_rounds)
    beside = {name: BARE for name in wanted if name != BARE}
    of_redis = {
        f"Redis, {name}": [each.redis_us for each in found[name]]
        for name in itertools.islice(wanted, 1, None)
        if name.startswith("moved only")
    }
    return [
        *rows({name: [each.cpu_us for each in some] for name, some in found.items()}, "CPU µs", beside),
        *rows(
            {f"{name}, a second": [each.rate for each in some] for name, some in found.items()},
            "events/s",
            {f"{name}, a second": f"{BARE}, a second" for name in beside},
        ),
        *rows(of_redis, "CPU µs", {}),
    ]


def backlog(kind: Kind, before: int, effort: Effort) -> list[bytes]:
    """Give the lines of a kind behind those that show every agent that comes back, as a day would have by now."""
    warm = lines("new places", before, seen=effort.agents)
    return [*warm, *lines(kind, effort.events, seen=effort.agents, first=before)]
