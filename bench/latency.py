"""From a click to a reader of Kafka, in milliseconds: part of `make bench`.

One collector, one kafkastore, real Redis and Apache Kafka on this machine. The clock starts when the visitor sends
the request and stops when a `read_committed` reader has the record. `idle` sends a click every half second, so that
each is the first of an idle pipeline.
"""

import asyncio
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
from confluent_kafka import Consumer, TopicPartition
from rig import SCRIPTS, lasting_kafka, redis
from table import Row, rows, show

from embedded.ports import free_port
from embedded.server import Child, Program

RATES = {"idle (2 a second)": 2, "100 a second": 100, "1,000 a second": 1000}
PARTITIONS = 4
AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
)


def child(stack, directory, environ, event, *command):
    program = Program(
        name=command[0],
        directory=directory / command[0],
        argv=(str(SCRIPTS / command[0]), *command[1:]),
        ports=(),
        answers=lambda: f'"{event}"' in program.log.read_text("utf-8"),
        environment={name: str(value) for name, value in environ.items()},
        start_seconds=60,
    )
    started = Child(program)
    started.start()
    stack.callback(started.stop)


def reader(bootstrap):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "latency",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition("clicks", partition, 0) for partition in range(PARTITIONS)])
    return consumer


def read(consumer, seen, wanted, deadline):
    while len(seen) < wanted and time.perf_counter() < deadline:
        record = consumer.poll(0.05)  # consume() would wait for company
        if record is not None:
            seen[record.value().partition(b'"click":"')[2].partition(b'"')[0].decode()] = time.perf_counter()


async def click(session, rate, seconds, name):
    sent = {}
    tasks = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        token = f"{name}-{number}"
        sent[token] = time.perf_counter()
        tasks.append(asyncio.create_task(one(session, f"/click/1/go?click={token}")))
    await asyncio.gather(*tasks)
    return sent


async def one(session, path):
    async with session.get(path, allow_redirects=False) as answer:
        await answer.read()


async def waits(port, consumer, seconds) -> dict[str, list[float]]:
    """Give the milliseconds of every click, in order, by rate."""
    found = {}
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", headers={"User-Agent": AGENT}, connector=aiohttp.TCPConnector(limit=50)
    ) as session:
        await one(session, "/click/1/go?click=first")
        await asyncio.to_thread(read, consumer, {}, 1, time.perf_counter() + 30)
        for name, rate in RATES.items():
            seen = {}
            deadline = time.perf_counter() + seconds + 30
            reading = asyncio.create_task(
                asyncio.to_thread(read, consumer, seen, int(rate * seconds), deadline)
            )
            sent = await click(session, rate, seconds, f"r{rate}")
            await reading
            found[name] = sorted((seen[token] - at) * 1000 for token, at in sent.items())
    return found


def measure(*, seconds: float) -> list[Row]:
    """Give the median and the 99th of a hundred, by rate."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-")))
        server = redis(stack, directory / "redis")
        kafka = stack.enter_context(lasting_kafka(directory / "kafka"))
        environ = {
            "PORT": free_port(),
            "HOST": "127.0.0.1",
            "REDIS_URL": server.url,
            "KAFKA_URL": kafka.url,
            "KAFKA_PARTITIONS": PARTITIONS,
            "DATABASE_URL": f"sqlite:///{directory}/onward.db",
            "JOURNAL_DIR": directory / "journal",
        }
        subprocess.run(
            [SCRIPTS / "collector", "links", "add", "--target", "default=https://www.example.com/"],
            env={name: str(value) for name, value in environ.items()},
            check=True,
            capture_output=True,
        )
        child(stack, directory, environ, "collector_started", "collector", "serve")
        child(stack, directory, environ, "queue_owned", "kafkastore", "run")
        consumer = reader(kafka.bootstrap)
        found = asyncio.run(waits(environ["PORT"], consumer, seconds))
        consumer.close()
    figures = {}
    for name, each in found.items():
        figures[f"click to Kafka, {name}, p50"] = [each[len(each) // 2]]
        figures[f"click to Kafka, {name}, p99"] = [each[int(len(each) * 0.99)]]
    return rows(figures, "ms", {})


if __name__ == "__main__":
    show(measure(seconds=20))
