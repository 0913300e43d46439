"""Everything breaks at random, for as long as it is told, by one seed; then everything drains, and the oracle counts.

Two collectors (one of two processes), two kafkastores, a Redis with appendfsync always, Kafka, and the networks
between them: each breaks in its own rhythm, whatever the others do. `make soak` runs it for ten minutes.

In the second half one collector and one kafkastore are left alive: they must not grow, whatever goes on around.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cutting_proxy import END_TXN, INIT_PRODUCER_ID, PRODUCE, CuttingProxy, KafkaProxy, asks_for
from world import World, children_of, go_on, pause, port_of, resident_bytes, until

from embedded.server import Child

PAUSE_SECONDS = 6.0
"""Between two faults of one thing, on average: with eight things something breaks each second."""

YOUNG_SECONDS = 10
"""After the last kill of the two that are left alive: they are up again, and know their visitors."""

KEEP_SECONDS = 5
"""JOURNAL_KEEP_SECONDS, so that journals come and go."""

GROWN_BYTES = 64 * 1024**2
GROWN_FILES = 40
GROWN_THREADS = 8
"""What a process may have more than when it was young: caches of user agents, pools of connections."""

DRAIN_SECONDS = 120

Fault = Callable[[random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process takes of the machine (Linux)."""

    resident_bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, child: Child) -> "Footprint":
        process = Path(f"/proc/{child.pid}")
        return cls(
            resident_bytes(child),
            len(list((process / "fd").iterdir())),
            len(list((process / "task").iterdir())),
        )

    def fits(self, young: "Footprint") -> bool:
        return (
            self.resident_bytes < young.resident_bytes + GROWN_BYTES
            and self.files < young.files + GROWN_FILES
            and self.threads < young.threads + GROWN_THREADS
        )


async def soak(world: World, seed: int, seconds: float) -> None:
    """Break everything for some seconds; `world` has its Kafka and nothing else yet."""
    world.environ |= {"JOURNAL_KEEP_SECONDS": KEEP_SECONDS, "QUEUES": 2}
    redis = await world.redis(appendfsync="always")
    to_redis = await world.through(CuttingProxy(redis.port))
    to_kafka = await world.through(KafkaProxy(world.kafka.brokers[0].port))
    through = {"REDIS_URL": to_redis.url, "KAFKA_URL": to_kafka.url}
    collectors = await asyncio.gather(
        world.collector(**through), world.collector(WEB_CONCURRENCY=2, **through)
    )
    kafkastores = await asyncio.gather(*(world.kafkastore(owns=False, **through) for _ in range(2)))
    began = time.monotonic()
    half, end = began + seconds / 2, began + seconds
    rhythms = {
        "collector 1 killed": (partial(_kill, world, collectors[0]), half),
        "collector 2 killed": (partial(_kill, world, collectors[1]), end),
        "collector 2's process killed": (partial(_kill_one_process, collectors[1]), end),
        "kafkastore 1 killed": (partial(_kill, world, kafkastores[0]), half),
        "kafkastore 2 killed or paused": (partial(_kill_or_pause, world, kafkastores[1]), end),
        "Redis killed or paused": (partial(_kill_or_pause, world, redis.child), end),
        "Kafka killed": (partial(_away, world), end),
        "network to Redis": (partial(_cut_redis, to_redis), end),
        "network to Kafka": (partial(_cut_kafka, to_kafka, world.prefix), end),
    }
    async with world.visitors.clicking(*map(port_of, collectors)), asyncio.TaskGroup() as group:
        breaking = {
            name: group.create_task(_again_and_again(fault, random.Random(f"{seed}/{name}"), until_time))  # noqa: S311
            for name, (fault, until_time) in rhythms.items()
        }
        await asyncio.sleep(seconds / 2 + YOUNG_SECONDS)
        young = {child: Footprint.of(child) for child in (collectors[0], kafkastores[0])}
    print(", ".join(f"{name}: {task.result()}" for name, task in breaking.items()))
    for child, before in young.items():
        now = Footprint.of(child)
        print(f"{child.program.name}: {before} → {now}")
        assert now.fits(before)
    await world.until_arrived(DRAIN_SECONDS)
    await _until_old_journals_are_gone(world, processes=3)
    await world.settle(32, seconds=DRAIN_SECONDS)


async def _again_and_again(fault: Fault, rng: random.Random, until_time: float) -> int:
    """Let a fault happen until a time of the monotonic clock; gives how often it did."""
    for count in itertools.count():
        at = time.monotonic() + rng.uniform(0.2, 2 * PAUSE_SECONDS)
        await asyncio.sleep(min(at, until_time) - time.monotonic())
        if at >= until_time:
            return count
        await fault(rng)
    raise AssertionError


async def _kill(world: World, child: Child, rng: random.Random) -> None:
    child.kill()
    await asyncio.sleep(rng.uniform(0, 2))
    await world.start(child)


async def _kill_or_pause(world: World, child: Child, rng: random.Random) -> None:
    if rng.random() < 0.5:
        await _kill(world, child, rng)
        return
    pause(child)
    await asyncio.sleep(rng.uniform(0.2, 8))
    go_on(child)


async def _kill_one_process(collector: Child, rng: random.Random) -> None:
    """Kill one of WEB_CONCURRENCY processes: its parent starts another one."""
    if children := children_of(collector):
        with contextlib.suppress(ProcessLookupError):  # the other fault may have been quicker
            os.kill(rng.choice(children), signal.SIGKILL)


async def _away(world: World, rng: random.Random) -> None:
    async with world.away(*world.kafka.brokers):
        await asyncio.sleep(rng.uniform(0, 4))


async def _cut_redis(proxy: CuttingProxy, rng: random.Random) -> None:
    asks = rng.choice((b"{click_queue}:journal:", b"exactly_once", b"{click_queue}:forgotten"))
    request = partial(_is_script_with, asks)
    rng.choice((proxy.lose_reply_to, partial(proxy.deliver_late, seconds=3)))(request)


def _is_script_with(asks: bytes, request: bytes) -> bool:
    return b"EVALSHA" in request and asks in request


async def _cut_kafka(proxy: KafkaProxy, prefix: str, rng: random.Random) -> None:
    asks = asks_for(rng.choice((PRODUCE, END_TXN, INIT_PRODUCER_ID)))
    rng.choice(
        (
            partial(proxy.lose_reply_to, asks),
            partial(proxy.instead_of, asks, lambda: None),
            partial(proxy.refuse, f"{prefix}clicks", rng.choice((-1, 7, 47, 48, 56))),
        )
    )()


async def _until_old_journals_are_gone(world: World, processes: int) -> None:
    """Every process keeps a journal for each queue; those of the dead are shipped, kept for a while, and removed."""
    journals = world.directory / "journal"
    await until(
        lambda: len(list(journals.iterdir())) <= processes * 2, DRAIN_SECONDS, "journals are left over"
    )
