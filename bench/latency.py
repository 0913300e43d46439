"""From a click to a reader of Kafka, in milliseconds: `.venv/bin/python bench/latency.py`.

One collector, one kafkastore, real Redis and Apache Kafka on this machine. The clock starts when the visitor sends
the request and stops when a `read_committed` reader has the record. `idle` sends a click every half second, so that
each is the first of an idle pipeline.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
from confluent_kafka import Consumer, TopicPartition

from embedded import apache_kafka
from embedded.apache_kafka import running_apache_kafka
from embedded.ports import free_port
from embedded.redis import running_redis
from embedded.server import Child, Program

SECONDS = float(os.environ.get("SECONDS", "20"))
RATES = {"idle (2 a second)": 2, "100 a second": 100, "1,000 a second": 1000}
PARTITIONS = 4
SCRIPTS = Path(sys.executable).parent
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
        for record in consumer.consume(1000, 0.05):
            seen[record.value().partition(b'"click":"')[2].partition(b'"')[0].decode()] = time.perf_counter()


async def click(session, rate, name):
    sent = {}
    tasks = []
    began = time.perf_counter()
    for number in range(int(rate * SECONDS)):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        token = f"{name}-{number}"
        sent[token] = time.perf_counter()
        tasks.append(asyncio.create_task(one(session, f"/click/1/go?click={token}")))
    await asyncio.gather(*tasks)
    return sent


async def one(session, path):
    async with session.get(path, allow_redirects=False) as answer:
        await answer.read()


async def measure(port, consumer):
    print(f"{'':<20}{'clicks':>8}{'p50 ms':>9}{'p99 ms':>9}{'most ms':>9}")
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}",
        headers={"User-Agent": AGENT},
        connector=aiohttp.TCPConnector(limit=50),
    ) as session:
        await one(session, "/click/1/go?click=first")
        await asyncio.to_thread(read, consumer, {}, 1, time.perf_counter() + 30)
        for name, rate in RATES.items():
            seen = {}
            wanted = int(rate * SECONDS)
            reading = asyncio.create_task(
                asyncio.to_thread(read, consumer, seen, wanted, time.perf_counter() + SECONDS + 30)
            )
            sent = await click(session, rate, f"r{rate}")
            await reading
            found = sorted((seen[token] - at) * 1000 for token, at in sent.items())
            print(
                f"{name:<20}{len(found):>8,}{statistics.median(found):>9.1f}"
                f"{found[int(len(found) * 0.99)]:>9.1f}{found[-1]:>9.1f}"
            )


def main():
    apache_kafka.JVM = ("-XX:+UseSerialGC", "-Xms32m")  # compiled as a broker that stays
    found = shutil.which("redis-server")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-")))
        redis = stack.enter_context(running_redis(directory / "redis", binary=found and Path(found)))
        kafka = stack.enter_context(running_apache_kafka(directory / "kafka"))
        environ = {
            "PORT": free_port(),
            "HOST": "127.0.0.1",
            "REDIS_URL": redis.url,
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
        asyncio.run(measure(environ["PORT"], consumer))
        consumer.close()


if __name__ == "__main__":
    main()
