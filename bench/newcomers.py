"""A visitor who was never here: a connection of his own, one click, and then he is silent. Part of `make bench`.

That is what a collector meets that nothing stands in front of: browsers follow one link and keep their connection.
Beside bare aiohttp and nginx, which answer a constant; with TLS each comes with a whole handshake (ECDSA P-256, as
certificate authorities give by default).
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import trustme
import uvloop
from rig import CLIENT_CORE, cpu_seconds, empty, need, resident_mb, started, trusting_anybody
from rivals import bare_handler, nginx
from shared import Shared
from table import Row, in_turns, rows
from visitors import agents

from embedded.server import Child

Seen = TypeVar("Seen")

TLS = ", TLS"
BARE = "bare aiohttp handler"
NGINX, NGINX_TLS = "nginx, a constant", f"nginx, a constant{TLS}"
CLICK, CLICK_TLS, FULL = "a click", f"a click{TLS}", "a click, and another visitor makes room"
WARM = 100
LINKS = 100
ASK = "GET /click/{link}/go HTTP/1.1\r\nHost: go.example.com\r\nUser-Agent: {agent}\r\n\r\n"
TOGETHER = 16
"""Visitors who come at the same time."""

ROOM = 200
"""For how many there is room where they make room for each other."""

BASELINES = {BARE: NGINX, CLICK: NGINX, FULL: NGINX, CLICK_TLS: NGINX_TLS}


@dataclass(frozen=True, slots=True)
class Visited:
    """What a visitor cost."""

    cpu_us: float
    kb: float
    """As long as he is silent."""


def measure(shared: Shared) -> list[Row]:
    """Give the processor's time of a visit, and the memory of a silent visitor in KB of 10^3 bytes."""
    need(nginx="nginx-light libnginx-mod-http-lua lua-nginx-redis")
    effort, directory = shared.effort, shared.directory / "newcomers"
    directory.mkdir()
    certificate, key = directory / "chain.pem", directory / "key.pem"
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(key)
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(certificate, append=number > 0)
    collector = partial(shared.collector, redis_url=shared.redis.url, links=effort.links)
    children = {
        NGINX: nginx(directory, shared.redis),
        NGINX_TLS: nginx(directory, shared.redis, certificate, key),
        BARE: bare_handler(directory),
        CLICK: collector("newcomers-plain"),
        FULL: collector("newcomers-full", MAX_CONNECTIONS=ROOM),
        CLICK_TLS: collector("newcomers-tls", TLS_CERT=certificate, TLS_KEY=key),
    }
    come = 200 if effort.quick else 2_000
    visits = {
        name: partial(_visited, child, trusting_anybody() if name.endswith(TLS) else None, come)
        for name, child in children.items()
    }
    found = in_turns(visits, effort.few_rounds)
    empty(shared.redis)
    return [
        *_rows(found, "a new visitor: ", "CPU µs", "cpu_us"),
        *_rows(found, "memory of a silent visitor: ", "KB", "kb"),
    ]


def _rows(found: Mapping[str, Sequence[Visited]], prefix: str, unit: str, figure: str) -> list[Row]:
    values = {prefix + name: [getattr(one, figure) for one in some] for name, some in found.items()}
    if figure == "kb":
        del values[prefix + FULL]  # who makes room takes none
    return rows(values, unit, {prefix + name: prefix + baseline for name, baseline in BASELINES.items()})


def _visited(child: Child, context: ssl.SSLContext | None, come: int) -> Visited:
    started(child)
    own_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CORE})
    try:
        uvloop.run(_come(child, context, WARM))
        cpu, mb = cpu_seconds(child.pid), resident_mb(child.pid)
        visited = _come(child, context, come, lambda: (cpu_seconds(child.pid), resident_mb(child.pid)))
        cpu_then, mb_then = uvloop.run(visited)
        return Visited((cpu_then - cpu) / come * 1e6, (mb_then - mb) / come * 1e3)
    finally:
        os.sched_setaffinity(0, own_cores)
        child.stop()


async def _come(
    child: Child, context: ssl.SSLContext | None, come: int, look: Callable[[], Seen] = lambda: None
) -> Seen:
    """Have so many come, all of whom stay; gives what is seen while they are there."""
    port = child.program.ports[0]
    coming, silent = iter(list(islice(agents(), come))), []

    async def come_in_turn() -> None:
        for number, agent in enumerate(coming):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            silent.append(writer)
            writer.write(ASK.format(link=number % LINKS + 1, agent=agent).encode())
            await reader.readuntil(b"\r\n\r\n")

    await asyncio.gather(*(come_in_turn() for _ in range(TOGETHER)))
    seen = look()
    for writer in silent:
        writer.transport.abort()
    return seen
