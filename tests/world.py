"""A world to break: servers, our processes, visitors who know which click was answered, and the oracle.

Every click carries a token of its own that is found again in whatever record becomes of it: a click, a bot's, an
orphan, a dead letter. In the end: tokens answered = tokens in the topics, none missing, none twice.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from confluent_kafka import Consumer, TopicPartition
from cutting_proxy import CuttingProxy, cutting
from processes import SCRIPTS, has_said, healthy, running
from prometheus_client.parser import text_string_to_metric_families
from published import published_record
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from embedded.kafka import Broker, KafkaServer
from embedded.ports import free_port
from embedded.redis import RedisServer, running_redis
from embedded.server import Child

LINK = {
    "id": 1,
    "slug": "launch",
    "campaign": "Launch",
    "user_id": 1,
    "target_url": {"default": "https://shop.example/?c={click_id}"},
}
TOKEN = re.compile(rb"tok\d{8}")
EVENT_ID = re.compile(rb"event_id=([0-9a-f-]{36})")
PERSON = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"
BOT = "Googlebot/2.1 (+http://www.google.com/bot.html)"
CLICK_SECONDS = 2.0
"""A visitor waits this long; whether such a click was recorded nobody knows."""


async def sent_once(request, handler):
    """Keep aiohttp's client from sending a GET again by itself when its connection breaks: that is another click."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectionError as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


class Visitors:
    """People (two of three), bots and strangers with an unknown link. A person's clicks come one after another."""

    def __init__(self, rng: random.Random) -> None:
        self.asked: set[str] = set()
        self.answered: dict[str, str | None] = {}
        """Token → event id, where the redirect told it."""
        self.failed = 0
        self._rng = rng
        self._numbers = itertools.count(1)

    def token(self) -> str:
        token = f"tok{next(self._numbers):08d}"
        self.asked.add(token)
        return token

    async def click(self, session: aiohttp.ClientSession, visitor: int, padding: int = 0) -> None:
        """Click once; raises AssertionError for any answer but a redirect."""
        token = self.token()
        adid = f"{visitor:08d}-0000-4000-8000-000000000000"
        path, agent = (
            (f"/click/1/go?click={token}&adid={adid}&x={'y' * padding}", PERSON),
            (f"/click/1/go?click={token}&x={'y' * padding}", BOT),
            (f"/click/{token}/go?x={'y' * padding}", PERSON),
        )[max(visitor % 6 - 3, 0)]
        try:
            async with session.get(path, headers={"User-Agent": agent}, allow_redirects=False) as answer:
                assert answer.status == 307, answer.status
                self.answered[token] = answer.headers["Location"].partition("?c=")[2] or None
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            self.failed += 1

    @contextlib.asynccontextmanager
    async def clicking(
        self, *ports: int, visitors: int = 6, pause_seconds: float = 0.02, padding: int = 0
    ) -> AsyncIterator[None]:
        """Have visitors click for ever, each at any of these collectors."""

        stop = asyncio.Event()

        async def click_for_ever(visitor: int) -> None:
            timeout = aiohttp.ClientTimeout(total=CLICK_SECONDS)
            async with contextlib.AsyncExitStack() as stack:
                sessions = [
                    await stack.enter_async_context(
                        aiohttp.ClientSession(
                            f"http://127.0.0.1:{port}", timeout=timeout, middlewares=(sent_once,)
                        )
                    )
                    for port in ports
                ]
                while not stop.is_set():
                    await self.click(self._rng.choice(sessions), visitor, padding)
                    await asyncio.sleep(pause_seconds)

        tasks = [asyncio.create_task(click_for_ever(number)) for number in range(visitors)]
        try:
            yield
        finally:
            stop.set()  # whoever waits for an answer still gets it
            await asyncio.gather(*tasks)

    def line(self, seconds: int) -> bytes:
        """Give an event line as an older tracker pushes it."""
        token = self.token()
        return f"203.0.113.42 {seconds} clicks /t/click campaign_link_id=1&click={token} iPhone".encode()

    def pushed(self, lines: Iterable[bytes]) -> None:
        """Count lines as answered: Redis has them."""
        self.answered |= {TOKEN.search(line)[0].decode(): None for line in lines}


@dataclass(frozen=True, slots=True)
class Found:
    """A committed record that has a token."""

    token: str
    event_id: str
    topic: str
    partition: int
    key: bytes


class Reader:
    """Reads every event topic of a prefix by librdkafka, committed records only."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._prefix = prefix
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reads-and-commits-nothing",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )
        self._partitions: list[TopicPartition] = []

    def read(self) -> list[Found]:
        """Give what was committed since the last call, up to the ends of all partitions."""
        if not self._partitions:
            topics = self._consumer.list_topics(timeout=10).topics
            self._partitions = [
                TopicPartition(name, partition, 0)
                for name, topic in topics.items()
                if name.startswith(self._prefix) and not name.endswith("onward.batches")
                for partition in topic.partitions
            ]
        if not self._partitions:
            return []
        self._consumer.assign(self._partitions)  # from where we were; each tells its end again
        at_end: set[tuple[str, int]] = set()
        found = []
        while len(at_end) < len(self._partitions):
            for message in self._consumer.consume(10_000, timeout=0.1):
                where = (message.topic(), message.partition())
                if message.error() is None:
                    found.append(self._found(message))
                elif message.error().name() == "_PARTITION_EOF":
                    at_end.add(where)
        self._partitions = self._consumer.position(self._partitions)
        return found

    def close(self) -> None:
        self._consumer.close()

    def _found(self, message) -> Found:
        value, topic = message.value(), message.topic().removeprefix(self._prefix)
        token = TOKEN.search(value)[0].decode()
        if topic.endswith(".dead"):
            told = EVENT_ID.search(value)
            return Found(token, told[1].decode() if told else "", topic, message.partition(), message.key())
        return Found(token, published_record(message)["event_id"], topic, message.partition(), message.key())


@dataclass
class World:
    """Everything of one test. What it starts ends with `stack`."""

    directory: Path
    kafka: KafkaServer
    prefix: str
    visitors: Visitors
    environ: dict[str, object]
    stack: contextlib.AsyncExitStack
    collectors: list[Child] = field(default_factory=list)
    kafkastores: list[Child] = field(default_factory=list)
    redises: list[RedisServer] = field(default_factory=list)
    _names: itertools.count = field(default_factory=itertools.count)

    async def redis(self, *, binary: Path | None = None, **options) -> RedisServer:
        """Start a Redis of this world's own; the first one becomes REDIS_URL."""
        directory = self.directory / f"redis-{next(self._names)}"
        context = running_redis(directory, binary=binary, **options)
        server = await asyncio.to_thread(self.stack.enter_context, context)
        self.redises.append(server)
        self.environ.setdefault("REDIS_URL", server.url)
        return server

    async def client(self, server: RedisServer) -> Redis:
        return await self.stack.enter_async_context(Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)))

    async def collector(self, **environ) -> Child:
        """Start a collector, and return when it answers; its port is `port_of` it."""
        environ = {"PORT": free_port(), "METRICS_PORT": free_port(), **self.environ, **environ}
        child = await self._run(
            "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ
        )
        self.collectors.append(child)
        return child

    async def kafkastore(self, *arguments: str, owns: bool = True, **environ) -> Child:
        """Start a kafkastore, and return when it owns a queue, or with `owns=False` when it waits for one."""
        answers = has_said("kafkastore_started")
        child = await self._run(
            "kafkastore", "run", *arguments, answers=answers, **{**self.environ, **environ}
        )
        self.kafkastores.append(child)
        if owns:
            await until(lambda: said(child, "queue_owned"))
        return child

    async def both(self, **environ) -> tuple[Child, Child]:
        """Start a collector and a kafkastore."""
        return await asyncio.gather(self.collector(**environ), self.kafkastore(**environ))

    async def start(self, server: Child | RedisServer | Broker) -> None:
        """Start again what was killed, without keeping the visitors and the proxies waiting."""
        await asyncio.to_thread(server.start)

    async def stop(self, *children: Child) -> None:
        """Stop processes as a platform does: each must be gone within 10 s, with exit code 0."""
        alive = [child for child in children if child.pid]
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in alive))
        codes = {str(child.program.log): child._process.returncode for child in alive}
        assert set(codes.values()) <= {0}, codes

    async def settle(
        self,
        row: int,
        *,
        seconds: float = 60,
        dropped: int = 0,
        same_id: bool = False,
        doubled_at_most: int | None = None,
    ) -> list[Found]:
        """Let everything arrive, end all processes, and count; gives the records.

        `dropped` clicks are known to be lost. With `same_id` some may be there twice, under one event id.
        """
        await self.until_arrived(seconds, but=dropped)
        await self.stop(*self.collectors)
        await self.until_drained(seconds)
        await self.stop(*self.kafkastores)
        found = await asyncio.to_thread(self._read_all)
        ids = defaultdict(list)
        for one in found:
            ids[one.token].append(one.event_id)
        answered = self.visitors.answered
        missing = set(answered) - set(ids)
        doubled = {token: told for token, told in ids.items() if len(told) > 1}
        dead = sum(one.topic.endswith(".dead") for one in found)
        note = f" dropped={dropped}" if dropped else ""
        print(
            f"row {row}: answered={len(answered)} found={len(ids)} (dead={dead} "
            f"unanswered={len(set(ids) - set(answered))} failed={self.visitors.failed}){note} "
            f"missing={len(missing) - dropped} doubled={len(doubled)}"
        )
        assert len(missing) == dropped
        assert set(ids) <= self.visitors.asked
        if same_id:
            assert {len(set(told)) for told in doubled.values()} <= {1}, doubled
            assert doubled_at_most is None or len(doubled) <= doubled_at_most
        else:
            assert not doubled
        for token, told in answered.items():
            assert told is None or token not in ids or ids[token][0] == told, "the id the visitor was told"
        return found

    async def until_arrived(self, seconds: float = 60, *, but: int = 0) -> None:
        """Wait until what was answered by now is in a topic; after that time the oracle says what is missing."""
        reader = Reader(self.kafka.bootstrap, self.prefix)
        answered, found = set(self.visitors.answered), set()
        try:
            async with asyncio.timeout(seconds):
                while len(answered - found) > but:
                    found |= {one.token for one in await asyncio.to_thread(reader.read)}
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return
        finally:
            await asyncio.to_thread(reader.close)

    async def until_drained(self, seconds: float = 60) -> None:
        """Wait until no queue of any Redis holds anything."""
        for server in self.redises:
            async with Redis.from_url(server.url) as redis, asyncio.timeout(seconds):
                while await waiting_in(redis, int(self.environ.get("QUEUES", 1))):
                    await asyncio.sleep(0.05)

    def _read_all(self) -> list[Found]:
        reader = Reader(self.kafka.bootstrap, self.prefix)
        try:
            return reader.read()
        finally:
            reader.close()

    async def _run(self, *command: str, answers, **environ) -> Child:
        directory = self.directory / f"process-{next(self._names)}"
        context = running(directory, *command, answers=answers, **environ)
        return await asyncio.to_thread(self.stack.enter_context, context)

    @contextlib.asynccontextmanager
    async def away(self, *servers: RedisServer | Broker) -> AsyncIterator[None]:
        """Kill servers (`kill -9`), and start them again at the end."""
        for server in servers:
            await asyncio.to_thread(server.kill)
        try:
            yield
        finally:
            for server in servers:
                await self.start(server)

    async def through(self, proxy: CuttingProxy) -> CuttingProxy:
        """Run a proxy."""
        return await self.stack.enter_async_context(cutting(proxy))

    async def end_lease(self, queue: str = "click_queue") -> None:
        """Let a dead owner's lease run out at once: its five seconds are row 1's."""
        async with Redis.from_url(self.redises[0].url) as redis:
            await redis.delete(f"{{{queue}}}:lease")


async def waiting_in(redis: Redis, queues: int = 1) -> int:
    """Count the lines in the queues of a Redis, those in flight included."""
    names = ["click_queue", *(f"click_queue:{number}" for number in range(1, queues))]
    return sum([await redis.llen(key) for name in names for key in (name, f"{{{name}}}:inflight")])


def port_of(collector: Child) -> int:
    return int(collector.program.environment["PORT"])


def said(child: Child, event: str) -> list[dict]:
    """Give what a process has logged under this name, since it was started last."""
    lines = child.program.log.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if f'"{event}"' in line]


async def until(condition, seconds: float = 20, why: str = "") -> None:
    """Wait for a condition, given as a function or a coroutine function."""
    try:
        async with asyncio.timeout(seconds):
            while not (await answer if asyncio.iscoroutine(answer := condition()) else answer):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {why or condition}") from None


def resident_bytes(child: Child) -> int:
    """Tell how much memory a process has (Linux)."""
    return int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children_of(child: Child) -> list[int]:
    """Give the processes that a process started (Linux)."""
    try:
        return [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def pause(child: Child) -> None:
    os.killpg(child.pid, signal.SIGSTOP)


def go_on(child: Child) -> None:
    os.killpg(child.pid, signal.SIGCONT)


async def ready(child: Child) -> tuple[int, str, list[str]]:
    """Ask /readyz: status code, word, reasons."""
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{child.program.environment['METRICS_PORT']}") as session,
        session.get("/readyz") as answer,
    ):
        told = await answer.json()
        return answer.status, told["status"], told["reasons"]


async def metric(child: Child, name: str) -> Counter[str]:
    """Ask METRICS_PORT for a metric: its sum by its first label other than `worker`."""
    port = child.program.environment["METRICS_PORT"]
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.get("/metrics") as answer,
    ):
        text = await answer.text()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                label = next((value for key, value in sample.labels.items() if key != "worker"), "")
                found[label] += sample.value
    return found


def import_link(database_url: str, directory: Path) -> None:
    """Put the one link into a database."""
    file = directory / "links.jsonl"
    file.write_text(json.dumps(LINK))
    subprocess.run(
        [SCRIPTS / "collector", "links", "import", file],
        env={**os.environ, "DATABASE_URL": database_url},
        check=True,
        capture_output=True,
    )
