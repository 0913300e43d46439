"""From a click to a reader of Kafka, in milliseconds: part of `make bench`.

One collector, one kafkastore, real Redis and Apache Kafka on this machine. The clock starts when the visitor sends
the request and stops when a `read_committed` reader has the record. `idle` sends a click every half second, so that
each is the first of an idle pipeline; at half of the room wrk sends all but fifty a second.
"""

import asyncio
import sys
import time
from contextlib import ExitStack

import aiohttp
from confluent_kafka import Consumer, TopicPartition
from rig import SCRIPTS, await_empty, empty, run, worker
from shared import Shared
from table import Row, rows
from wrk import asking, load, paused, script

RATES = {"idle (2 a second)": 2, "100 a second": 100, "1,000 a second": 1000}
HALF, PROBES = "half of the room", 50
BOTH_CORES = "0,1"
LINKS = 100
PARTITIONS = 4
READ_SECONDS = 60
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


def read(consumer, name, wanted):
    """Give the time at which each click of that name was read."""
    seen = {}
    deadline = time.perf_counter() + READ_SECONDS
    while len(seen) < wanted:
        record = consumer.poll(0.05)  # consume() would wait for company
        if record is not None:
            token = record.value().partition(b'"click":"')[2].partition(b'"')[0].decode()
            if token.startswith(f"{name}-"):
                seen[token] = time.perf_counter()
        if time.perf_counter() > deadline:
            sys.exit(f"{len(seen)} of {wanted} clicks came to Kafka within {READ_SECONDS} s.")
    return seen


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


async def waits(port, consumer, rates, seconds) -> dict[str, list[float]]:
    """Give the milliseconds of every click, in order, by what the rates are called."""
    found = {}
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", headers={"User-Agent": AGENT}, connector=aiohttp.TCPConnector(limit=50)
    ) as session:
        for called, rate in rates.items():
            name = f"r{rate}"
            reading = asyncio.create_task(
                asyncio.to_thread(read, consumer, name, max(int(rate * seconds), 1))
            )
            sent = await click(session, rate, seconds, name)
            seen = await reading
            found[called] = sorted((seen[token] - at) * 1000 for token, at in sent.items())
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
        directory = shared.directory / "latency"
        directory.mkdir()
        collector = run(stack, shared.collector("early", redis.url, links=LINKS, core=BOTH_CORES))
        run(
            stack,
            worker(
                shared.directory / "kafkastore-early", [SCRIPTS / "kafkastore", "run"], environ, BOTH_CORES
            ),
        )
        consumer = reader(kafka.bootstrap)
        stack.callback(consumer.close)
        (port,) = collector.program.ports
        asyncio.run(waits(port, consumer, {"first": 1}, 1))
        found = asyncio.run(waits(port, consumer, RATES, _seconds(shared)))
        if not shared.effort.quick:
            asks = script(directory, "id", LINKS)
            room = load(collector, asks, 2).rate
            await_empty(redis)
            with asking(collector, paused(asks, "half", room / 2)):
                found |= asyncio.run(waits(port, consumer, {HALF: PROBES}, _seconds(shared)))
    figures, baselines = {}, {}
    for percent, share in (("p50", 0.5), ("p99", 0.99)):
        named = {name: f"click to Kafka, {name}, {percent}" for name in found}
        figures |= {named[name]: [each[int(len(each) * share)]] for name, each in found.items()}
        first, *others = named.values()
        baselines |= dict.fromkeys(others, first)
    return rows(figures, "ms", baselines)


def _seconds(shared: Shared) -> float:
    return 1 if shared.effort.quick else 15
