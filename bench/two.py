"""Two processes of `collector serve` against one, on both cores, beside the same load: part of `make bench`.

wrk and Redis run on the same two cores, so two processes cannot have twice the requests of one, and need not: whether
one gets into the other's way shows in the processor's time of a click, which should not grow.
"""

from contextlib import ExitStack
from functools import partial

from rig import empty, need, run
from shared import Shared
from table import Row, in_turns, rows
from wrk import Load, load, script

BOTH_CORES = "0,1"
NAMES = {"one process on both cores": 1, "two processes on both cores": 2}


def measure(shared: Shared) -> list[Row]:
    """Give requests a second, and the processor's time of each."""
    need(wrk="wrk", taskset="util-linux")
    effort = shared.effort
    one, two = NAMES
    with ExitStack() as stack:
        directory = shared.directory / "two"
        directory.mkdir()
        asks = script(directory, "id", effort.links)

        def ask(child) -> Load:
            found = load(child, asks, effort.seconds, connections=64, core=BOTH_CORES)
            empty(shared.redis)
            return found

        children = {
            name: run(
                stack,
                shared.collector(
                    f"of-{processes}",
                    shared.redis.url,
                    links=effort.links,
                    core=BOTH_CORES,
                    WEB_CONCURRENCY=processes,
                ),
            )
            for name, processes in NAMES.items()
        }
        found = in_turns({name: partial(ask, child) for name, child in children.items()}, effort.rounds)
    return [
        *rows({name: [each.cpu_us for each in some] for name, some in found.items()}, "CPU µs", {two: one}),
        *rows(
            {f"{name}, a second": [each.rate for each in some] for name, some in found.items()},
            "requests/s",
            {f"{two}, a second": f"{one}, a second"},
        ),
    ]
