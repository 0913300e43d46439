"""From a click to a reader of Kafka, in milliseconds: part of `make bench`.

One collector, one kafkastore, real Redis and Apache Kafka on this machine. The clock starts when the visitor sends
the request and stops when a `read_committed` reader has the record. `idle` sends a click every half second, so that
each is the first of an idle pipeline.
"""

import asyncio
import time
from contextlib import ExitStack

import aiohttp
from confluent_kafka import Consumer, TopicPartition
from rig import SCRIPTS, empty, run, worker
from shared import Shared
from table import Row, rows

RATES = {"idle (2 a second)": 2, "100 a second": 100, "1,000 a second": 1000}
BOTH_CORES = "0,1"
PARTITIONS = 4
PREFIX = "latency."
AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
)


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
    consumer.assign([TopicPartition(f"{PREFIX}clicks", partition, 0) for partition in range(PARTITIONS)])
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


def measure(shared: Shared) -> list[Row]:
    """Give the median and the 99th of a hundred, by rate, beside those of an idle pipeline."""
    redis, kafka = shared.redis, shared.kafka
    empty(redis)
    environ = {
        "REDIS_URL": redis.url,
        "KAFKA_URL": kafka.url,
        "KAFKA_PREFIX": PREFIX,
        "KAFKA_PARTITIONS": PARTITIONS,
    }
    with ExitStack() as stack:
        collector = run(stack, shared.collector("early", redis.url, links=100, core=BOTH_CORES))
        run(
            stack,
            worker(
                shared.directory / "kafkastore-early", [SCRIPTS / "kafkastore", "run"], environ, BOTH_CORES
            ),
        )
        consumer = reader(kafka.bootstrap)
        found = asyncio.run(waits(collector.program.ports[0], consumer, _seconds(shared)))
        consumer.close()
    figures, baselines = {}, {}
    for percent, share in (("p50", 0.5), ("p99", 0.99)):
        named = {name: f"click to Kafka, {name}, {percent}" for name in found}
        figures |= {named[name]: [each[int(len(each) * share)]] for name, each in found.items()}
        first, *others = named.values()
        baselines |= dict.fromkeys(others, first)
    return rows(figures, "ms", baselines)


def _seconds(shared: Shared) -> float:
    return 1 if shared.effort.quick else 15
