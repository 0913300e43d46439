"""Two processes against one, on the same core: part of `make bench`.

The load, Redis and the broker need the other core, so two processes on both cores would only take it from them. What
an event costs when two share one core tells what two cores give: twice as much, divided by the ratio found here. Each
of two collectors has as many connections as the one, each of two kafkastores a queue of its own.
"""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from delivery import backlog
from move import Move, Moved, fill, moved
from rig import empty, need, run
from shared import Shared
from table import Row, in_turns, rows
from wrk import CONNECTIONS, Load, load, script

from kafkastore.queue import MOST_LINES

COUNTS = {"one": 1, "two": 2}


def measure(shared: Shared) -> list[Row]:
    """Give the processor's time of a click and of an event, and how many there were a second."""
    need(wrk="wrk", taskset="util-linux")
    return [*_collectors(shared), *_kafkastores(shared)]


def _collectors(shared: Shared) -> list[Row]:
    effort = shared.effort
    with ExitStack() as stack:
        directory = shared.directory / "two"
        directory.mkdir()
        asks = script(directory, "id", effort.links)

        def ask(child, processes: int) -> Load:
            found = load(child, asks, effort.seconds, connections=CONNECTIONS * processes)
            empty(shared.redis)
            return found

        steps = {}
        for name, processes in COUNTS.items():
            child = shared.collector(
                f"{name}-of-two", shared.redis.url, links=effort.links, WEB_CONCURRENCY=processes
            )
            steps[f"a click, {name} on one core"] = partial(ask, run(stack, child), processes)
        for step in steps.values() if effort.warm_seconds else ():
            step()
        found = in_turns(steps, effort.rounds)
    return _rows(
        {name: [one.cpu_us for one in some] for name, some in found.items()},
        {name: [one.rate for one in some] for name, some in found.items()},
        "requests/s",
    )


def _kafkastores(shared: Shared) -> list[Row]:
    effort = shared.effort
    before = max(effort.agents, MOST_LINES)
    waiting = backlog("realistic", before, effort)
    environ = {
        "REDIS_URL": shared.redis.url,
        "KAFKA_URL": shared.kafka.url,
        "KAFKA_PARTITIONS": "6",
        "KAFKA_PREFIX": "two.",
    }

    def move(processes: int) -> Sequence[Moved]:
        for queue in range(processes):
            fill(shared.redis, waiting, queue=queue)
        return moved(*(Move("enriched", environ, before, effort.events, queue) for queue in range(processes)))

    steps = {f"an event, {name} on one core": partial(move, processes) for name, processes in COUNTS.items()}
    found = in_turns(steps, effort.few_rounds)
    return _rows(
        {
            name: [statistics.mean(one.cpu_us for one in each) for each in some]
            for name, some in found.items()
        },
        {name: [sum(one.rate for one in each) for each in some] for name, some in found.items()},
        "events/s",
    )


def _rows(costs: dict[str, list[float]], rates: dict[str, list[float]], unit: str) -> list[Row]:
    one, two = costs
    return [
        *rows(costs, "CPU µs", {two: one}),
        *rows(
            {f"{name}, a second": some for name, some in rates.items()},
            unit,
            {f"{two}, a second": f"{one}, a second"},
        ),
    ]
