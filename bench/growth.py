"""Whether an event costs the same when there is more of everything: part of `make bench`.

Lines in Redis, links of a collector, partitions of a topic: the first of each series is what the others are compared
with. Events are moved without enrichment, off the head of a backlog in a Redis of its own that keeps nothing on disk:
what is looked for is what grows. MOST_LINES=10000000 takes that one further, and 12 GB of memory.
"""

import os
from contextlib import ExitStack
from functools import partial

from move import Move, Moved, fill, moved
from rig import CLIENT_CORE, empty, need, resident_mb, started
from shared import Shared
from table import Row, in_turns, rows
from visitors import lines
from wrk import load, script

from embedded.redis import RedisServer, running_redis
from kafkastore.queue import MOST_LINES

EVENTS = 20_000
FEWEST_LINES, FEWEST_LINKS = 1_000, 100


def measure(shared: Shared) -> list[Row]:
    """Give every series."""
    need(wrk="wrk", taskset="util-linux")
    with ExitStack() as stack:
        server = stack.enter_context(
            running_redis(shared.directory / "redis-of-growth", extra=("--appendonly", "no"))
        )
        os.sched_setaffinity(server.pid, {CLIENT_CORE})
        found = [*_backlog(shared, server), *_partitions(shared, server)]
    return [*found, *_links(shared)]


def _backlog(shared: Shared, server: RedisServer) -> list[Row]:
    found = _moved(
        shared,
        server,
        {
            f"{number:,} lines wait": ({}, number)
            for number in _decades(FEWEST_LINES, shared.effort.most_lines)
        },
    )
    of_redis = {f"{name}, Redis": [one.redis_us for one in some] for name, some in found.items()}
    costs = {f"{name}, kafkastore": [one.cpu_us for one in some] for name, some in found.items()}
    return [*_series(costs, "CPU µs"), *_series(of_redis, "CPU µs")]


def _partitions(shared: Shared, server: RedisServer) -> list[Row]:
    found = _moved(
        shared,
        server,
        {
            f"{number} partition{'s'[: number - 1]}": (
                {"KAFKA_PREFIX": f"growth{number}.", "KAFKA_PARTITIONS": str(number)},
                0,
            )
            for number in shared.effort.partitions
        },
    )
    return _series({name: [one.cpu_us for one in some] for name, some in found.items()}, "CPU µs")


def _moved(shared: Shared, server: RedisServer, series) -> dict[str, tuple[Moved, ...]]:
    """Move the same events with other variables, and other numbers of lines behind them."""
    events = min(shared.effort.events, EVENTS)
    prepared = list(lines("realistic", MOST_LINES + events))
    environ = {"REDIS_URL": server.url, "KAFKA_URL": shared.kafka.url, "KAFKA_PREFIX": "growth."}

    def one(more, behind) -> Moved:
        fill(server, prepared, behind)
        return moved(Move("moved", environ | more, MOST_LINES, events))[0]

    found = in_turns({name: partial(one, *how) for name, how in series.items()}, shared.effort.few_rounds)
    empty(server)
    return found


def _links(shared: Shared) -> list[Row]:
    effort, server = shared.effort, shared.redis
    directory = shared.directory / "growth"
    directory.mkdir()
    with ExitStack() as stack:
        children = {}
        starts = {}
        for number in _decades(FEWEST_LINKS, effort.most_links):
            child = shared.collector(f"links-{number}", server.url, links=number)
            stack.callback(child.stop)
            starts[number] = started(child).cpu_ms
            children[number] = child

        def ask(number: int) -> float:
            found = load(children[number], script(directory, "id", number), effort.seconds)
            empty(server)
            return found.cpu_us

        steps = {f"{number:,} links, a click": partial(ask, number) for number in children}
        for step in steps.values() if effort.warm_seconds else ():
            step()
        found = in_turns(steps, effort.few_rounds)
        memory = {f"{number:,} links, memory": [resident_mb(child.pid)] for number, child in children.items()}
    return [
        *_series(found, "CPU µs"),
        *_series(memory, "MB"),
        *_series({f"{number:,} links, start": [each] for number, each in starts.items()}, "CPU ms"),
    ]


def _decades(first: int, last: int) -> list[int]:
    found = [first]
    while found[-1] * 10 <= last:
        found.append(found[-1] * 10)
    return found


def _series(found, unit: str) -> list[Row]:
    """Give rows beside the first of them."""
    first = next(iter(found))
    return rows(found, unit, {name: first for name in found if name != first})
