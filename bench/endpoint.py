"""A click on `collector serve` beside bare aiohttp and beside nginx, one core each, in turns: part of `make bench`.

The collector has 100,000 links, meets 30,000 different user agents, and ships every click to a real Redis. Then how
long clicks wait at half and at four fifths of what there is room for: as it is, with Redis away, and with Kafka away,
of which a collector knows nothing: beside this one a kafkastore waits for its Kafka, on the same Redis.
"""

import itertools
import statistics
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rig import CLIENT_CORE, SCRIPTS, empty, need, redis, redis_seconds, run, worker
from rivals import bare_handler, bare_server, nginx
from shared import Shared
from table import Row, in_turns, rows
from wrk import CONNECTIONS, FEW_CONNECTIONS, load, paused, script

from embedded.ports import free_port
from embedded.server import Child

BARE = "bare aiohttp handler"
CLICK = "a click, by id"
AWAY = "a click, Redis away"
RIVAL = "nginx + Lua, pushed to Redis"
SHIPPED = "Redis, a click shipped"
FEW = f", {FEW_CONNECTIONS} connections"
QUICK = (BARE, "nginx, a constant", RIVAL, CLICK, AWAY)
SHARES = (0.5, 0.8)


def measure(shared: Shared) -> list[Row]:
    """Give every row: the processor's time of each, requests a second, and how long they wait."""
    need(wrk="wrk", taskset="util-linux", nginx="nginx-light libnginx-mod-http-lua lua-nginx-redis")
    effort, server, links = shared.effort, shared.redis, shared.effort.links
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with ExitStack() as stack:
        directory = shared.directory / "endpoint"
        directory.mkdir()
        by = {path: script(directory, path, links) for path in ("id", "slug", "unknown", "lua")}
        handler = run(stack, bare_handler(directory))
        rival = run(stack, nginx(directory, server))
        whole = run(stack, shared.collector("whole", server.url, links=links))
        alone = run(stack, shared.collector("alone", nowhere, links=links))
        asked = {
            BARE: (handler, by["id"]),
            "bare aiohttp web.Server": (run(stack, bare_server(directory)), by["id"]),
            "nginx, a constant": (rival, by["id"]),
            RIVAL: (rival, by["lua"]),
            CLICK: (whole, by["id"]),
            "a click, by slug": (whole, by["slug"]),
            "an unknown link": (whole, by["unknown"]),
            AWAY: (alone, by["id"]),
        }
        if effort.quick:
            asked = {name: asked[name] for name in QUICK}

        else:
            asked |= {f"{name}{FEW}": asked[name] for name in (RIVAL, CLICK)}

        def ask(child: Child, asks: Path, connections: int, seconds: float = effort.seconds):
            before = redis_seconds(server)
            found = load(child, asks, seconds, connections=connections)
            shipped = redis_seconds(server) - before
            empty(server)
            return found, shipped / (found.rate * seconds) * 1e6

        for child, asks in asked.values() if effort.warm_seconds else ():
            ask(child, asks, CONNECTIONS, effort.warm_seconds)
        steps = {
            name: partial(ask, *one, FEW_CONNECTIONS if name.endswith(FEW) else CONNECTIONS)
            for name, one in asked.items()
        }
        found = in_turns(steps, effort.rounds)
        loads = {name: [each for each, _ in some] for name, some in found.items()}
        room = {
            child.pid: statistics.median(each.rate for each in loads[name])
            for name, child in ((BARE, handler), (CLICK, whole), (AWAY, alone))
        }
        waiting = {BARE: handler, "a click": whole}
        if not effort.quick:
            beside = run(stack, _without_kafka(shared, stack))
            room[beside.pid] = room[whole.pid]
            waiting |= {AWAY: alone, "a click, Kafka away": beside}
        return [
            *rows(
                {name: [each.cpu_us for each in some] for name, some in loads.items()},
                "CPU µs",
                {name: BARE for name in asked if name != BARE},
            ),
            *rows(
                {f"{name}, a second": [each.rate for each in some] for name, some in loads.items()},
                "requests/s",
                {
                    f"{name}, a second": f"{RIVAL}{FEW if name.endswith(FEW) else ''}, a second"
                    for name in asked
                    if name.removesuffix(FEW) != RIVAL
                },
            ),
            *rows({SHIPPED: [redis_us for _, redis_us in found[CLICK]]}, "CPU µs", {}),
            *_waits(shared, waiting, room, by["id"]),
        ]


def _without_kafka(shared: Shared, stack: ExitStack) -> Child:
    """Give a collector on a Redis that it shares with a kafkastore whose Kafka is away."""
    server = redis(stack, shared.directory / "redis-beside")
    environ = {"REDIS_URL": server.url, "KAFKA_URL": f"kafka://127.0.0.1:{free_port()}"}
    waits = worker(
        shared.directory / "kafkastore-beside", [SCRIPTS / "kafkastore", "run"], environ, CLIENT_CORE
    )
    waits.launch()
    stack.callback(waits.stop)
    return shared.collector("beside", server.url, links=shared.effort.links)


def _waits(shared: Shared, waiting: dict[str, Child], room: dict[int, float], asks: Path) -> list[Row]:
    """Give the 50th and 99th of a hundred waits of each at some shares of what it has room for."""
    effort = shared.effort
    shares = SHARES[-1:] if effort.quick else SHARES
    steps = {
        f"{name}, at {share:.0%} of its room": partial(
            load,
            child,
            paused(asks, f"{child.program.name}-{share}", share * room[child.pid]),
            effort.seconds,
        )
        for share, (name, child) in itertools.product(shares, waiting.items())
    }
    found = in_turns(steps, effort.rounds)
    baselines = {
        f"{name}, at {share:.0%} of its room": f"{'a click' if 'away' in name else BARE}, at {share:.0%} of its room"
        for share, name in itertools.product(shares, waiting)
        if name != BARE
    }
    return [
        row
        for percent in ("p50", "p99")
        for row in rows(
            {
                f"{name}, {percent}": [getattr(each, f"{percent}_ms") for each in some]
                for name, some in found.items()
            },
            "ms",
            {f"{name}, {percent}": f"{baseline}, {percent}" for name, baseline in baselines.items()},
        )
    ]
