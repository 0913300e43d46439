"""A queue of lines moved to Kafka in a process of its own, on its own core: what delivery and growth measure.

`bare` is what aiokafka itself costs: ready records in transactions of the same size, without Redis. `moved` is
claim → publish → forget with the line itself as the value, no enrichment. `enriched` is what `kafkastore run` does.
The clock runs for the events behind the first ones, by which everything is warm.
"""

import asyncio
import gc
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import uvloop
from redis import Redis
from rig import SERVER_CORE

from collector.queue import QueueKeys, open_redis, queue_keys
from geoip.database import open_database
from kafkastore.device import warm
from kafkastore.outgoing import Outgoing
from kafkastore.pipeline import Pipeline
from kafkastore.publisher import open_publisher
from kafkastore.queue import MOST_LINES, Batch, Queue
from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics
from process.logs import configure_logs
from process.settings import read_settings

LOOK_SECONDS = 0.005
AT_ONCE = 5_000
"""Lines pushed in one command."""

_FILL = """
local some = {}
for i = 1, ARGV[2] do some[i] = ARGV[1] end
redis.call('RPUSH', KEYS[1], unpack(some))
"""

_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["kafkastore.pipeline", "geoip.database", "uvloop"])


@dataclass(frozen=True, slots=True)
class Move:
    """What to do."""

    how: str
    environ: Mapping[str, str]
    before: int
    """Events that are moved before the clock starts."""
    events: int
    queue: int = 0
    """Its number, of several on the same Redis."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What an event took."""

    cpu_us: float
    redis_us: float
    """Of Redis's processor."""
    rate: float
    """Events a second by the clock."""


class Mover(Pipeline):
    """A pipeline whose records are the lines as they are."""

    async def _outgoing(self, batch):
        return _plain(batch)


def fill(server, lines: Sequence[bytes], behind: int = 0, queue: int = 0) -> None:
    """Make a queue these lines, and as many more of the last one behind them."""
    name = _keys(queue).list
    with Redis.from_url(server.url) as client:
        client.unlink(name)
        for begin in range(0, len(lines), AT_ONCE):
            client.rpush(name, *lines[begin : begin + AT_ONCE])
        for begin in range(0, behind, AT_ONCE):
            client.eval(_FILL, 1, name, lines[-1], min(behind - begin, AT_ONCE))


def moved(*moves: Move) -> list[Moved]:
    """Move events, each in a process of its own, at the same time."""
    with ProcessPoolExecutor(len(moves), mp_context=_PROCESSES) as processes:
        return list(processes.map(_moved, moves))


def _moved(move: Move) -> Moved:
    os.sched_setaffinity(0, {SERVER_CORE})
    configure_logs("error")
    warm()
    gc.freeze()  # as process/run.py does
    return uvloop.run(_run(move))


async def _run(move: Move) -> Moved:
    settings = read_settings(KafkastoreSettings, move.environ)
    await ensure_topics(settings)
    client = open_redis(settings.redis_urls[0], tls_insecure=False)
    try:
        if move.how == "bare":
            return await _publish(move, settings, client)
        kind = Mover if move.how == "moved" else Pipeline
        pipeline = kind(settings, open_database(settings.geoip_db).place_of)
        stop = asyncio.Event()
        running = asyncio.create_task(pipeline.run([Queue(client, _keys(move.queue))], stop))
        begin = await _when(pipeline, running, move.before, client)
        end = await _when(pipeline, running, move.before + move.events, client)
        stop.set()
        await running
        return _between(begin, end)
    finally:
        await client.aclose()


@dataclass(frozen=True, slots=True)
class _Mark:
    events: int
    clock: float
    cpu: float
    redis: float


async def _mark(events: int, client) -> _Mark:
    cpu, clock = time.process_time(), time.perf_counter()
    used = await client.info("cpu")
    return _Mark(events, clock, cpu, used["used_cpu_user"] + used["used_cpu_sys"])


async def _when(pipeline: Pipeline, running: asyncio.Task, events: int, client) -> _Mark:
    """Wait until so many events are in Kafka."""
    while pipeline.published.total() < events:
        if running.done():
            running.result()
        await asyncio.sleep(LOOK_SECONDS)
    return await _mark(pipeline.published.total(), client)


def _between(begin: _Mark, end: _Mark) -> Moved:
    events = end.events - begin.events
    return Moved(
        (end.cpu - begin.cpu) / events * 1e6,
        (end.redis - begin.redis) / events * 1e6,
        events / (end.clock - begin.clock),
    )


async def _publish(move: Move, settings: KafkastoreSettings, client) -> Moved:
    line = b"x" * 700
    async with open_publisher(settings, "00000000-0000-4000-8000-000000000000") as publisher:
        begin = await _mark(0, client)
        published = 0
        while published < move.before + move.events:
            if not begin.events and published >= move.before:
                begin = await _mark(published, client)
            some = [line + b"%08d" % number for number in range(published, published + MOST_LINES)]
            await publisher.publish(_plain(Batch(str(published), None, some)))
            published += len(some)
        return _between(begin, await _mark(published, client))


def _keys(queue: int) -> QueueKeys:
    return queue_keys(queue + 1)[queue]


def _plain(batch: Batch) -> Outgoing:
    now = time.time_ns() // 1_000_000
    return Outgoing(
        batch,
        {index: Record("clicks", line[:48], line, now, []) for index, line in enumerate(batch.lines)},
    )
