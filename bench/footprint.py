"""How long it takes to start, and what memory it takes: part of `make bench`.

Beside a bare aiohttp handler, which answers as soon as it is imported. A collector has started when it answers, a
kafkastore when it owns its queue. Loaded is a collector that has met some ten thousand agents, and a kafkastore that
has moved a backlog. Memory is resident.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from move import fill
from rig import SCRIPTS, await_empty, empty, need, resident_mb, started, worker
from rivals import bare_handler
from shared import Shared
from table import Row, in_turns, rows
from visitors import lines
from wrk import load, script

from embedded.server import Child

BARE = "bare aiohttp handler"
WORKER = "kafkastore run"


@dataclass(frozen=True, slots=True)
class Life:
    """What was seen of a process from its start to its end."""

    start_ms: float
    start_cpu_ms: float
    idle_mb: float
    loaded_mb: float


def measure(shared: Shared) -> list[Row]:
    """Give starts in milliseconds, by the clock and of the processor, and memory in MB of 10^6 bytes."""
    need(wrk="wrk", taskset="util-linux")
    effort, server = shared.effort, shared.redis
    directory = shared.directory / "footprint"
    directory.mkdir()
    asks = script(directory, "id", effort.links)
    backlog = list(lines("realistic", effort.events, seen=effort.agents))
    environ = {"REDIS_URL": server.url, "KAFKA_URL": shared.kafka.url, "KAFKA_PREFIX": "footprint."}
    many = f"collector serve, {effort.links:,} links"
    children = {
        BARE: bare_handler(directory),
        "collector serve, no links": shared.collector("with-none", server.url, links=0),
        many: shared.collector("with-many", server.url, links=effort.links),
        WORKER: worker(directory / "kafkastore", [SCRIPTS / "kafkastore", "run"], environ),
    }

    def clicks(child: Child) -> None:
        load(child, asks, effort.seconds if effort.quick else 2 * effort.seconds)
        empty(server)

    def moves(_child: Child) -> None:
        fill(server, backlog)
        await_empty(server)

    empty(server)
    lives = {
        name: partial(_life, child, moves if name == WORKER else clicks) for name, child in children.items()
    }
    if effort.quick:
        del lives[many]
    else:
        lives[WORKER]()  # the first one makes topics
    found = in_turns(lives, effort.few_rounds)
    return [
        row
        for what, unit in (
            ("start_ms", "ms"),
            ("start_cpu_ms", "CPU ms"),
            ("idle_mb", "MB"),
            ("loaded_mb", "MB"),
        )
        for row in rows(
            {_named(what, name): [getattr(one, what) for one in some] for name, some in found.items()},
            unit,
            {_named(what, name): _named(what, BARE) for name in found if name != BARE},
        )
    ]


def _named(what: str, name: str) -> str:
    said = {
        "start_ms": "start",
        "start_cpu_ms": "start, its processor",
        "idle_mb": "memory, idle",
        "loaded_mb": "memory, loaded",
    }
    return f"{said[what]}: {name}"


def _life(child: Child, works: Callable[[Child], None]) -> Life:
    try:
        start = started(child)
        idle_mb = resident_mb(child.pid)
        works(child)
        return Life(start.ms, start.cpu_ms, idle_mb, resident_mb(child.pid))
    finally:
        child.stop()
