"""Events a second of the consumers, beside a loop that only reads and decodes: `.venv/bin/python bench/consume.py`.

One Apache Kafka, one PostgreSQL and one ClickHouse on this machine, as the tests have them; six partitions; clicks of
2,000 links (a few of them busy), by visitors most of whom come once. All begin at the oldest event, in turns. The
last column is what this process itself takes of a core: the servers have theirs, and ClickHouse is slow here, behind
its front of the tests. No test asserts these: machines differ and are shared. Compare rows of one run.
"""

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer
from pydantic import SecretStr

from consumers.clickhouse import ClickHouse
from consumers.clickhouse_server import ClickHouseServer
from consumers.counts import decode
from consumers.loop import Loop
from consumers.progress import Progress
from consumers.totals import Totals
from embedded.ports import free_port
from embedded.postgres import running_postgres
from embedded.real_kafka import running_real_kafka
from embedded.server import Child, Program
from kafkastore.settings import KafkastoreSettings
from links.link import link_of
from links.store import LinkStore
from process.settings import read_settings

EVENTS = int(os.environ.get("EVENTS", "300000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
PARTITIONS = 6
LINKS = 2_000
NEW_VISITORS = 0.7
TESTS = Path(__file__).parent.parent / "tests"
EXAMPLES = TESTS / "data" / "events.jsonl"


def click():
    return next(
        example["value"]
        for example in map(json.loads, EXAMPLES.read_text("utf-8").splitlines())
        if example["name"] == "click"
    )


def values(rng):
    example = click()
    for number in range(EVENTS):
        yield json.dumps(
            example
            | {
                "event_id": f"00000000-0000-7000-8000-{number:012x}",
                "clicked_at": f"2026-01-{rng.choice((30, 31))}T12:00:00.000Z",
                "link_id": min(int(rng.paretovariate(0.5)), LINKS),
                "user_id": rng.randrange(200),
                "visitor_id": f"{rng.getrandbits(255):064x}"
                if rng.random() < NEW_VISITORS
                else f"{rng.randrange(1000):064x}",
                "country": rng.choice(("DE", "FR", "US", "ES", "IT", None)),
                "platform": rng.choice(("ios", "android", "windows")),
                "referer": rng.choice(("news.example.org", "www.example.com", None)),
            }
        ).encode()


async def fill(bootstrap):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in ("clicks", "referrals", "bots")])
    await admin.close()
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
    )
    for number, value in enumerate(values(random.Random(1))):
        producer.produce("clicks", value, partition=number % PARTITIONS)
        producer.poll(0)
    producer.flush(60)


async def read_and_decode(bootstrap):
    """Read and decode everything, and do nothing with it."""
    consumer = AIOKafkaConsumer(
        "clicks",
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
        fetch_max_bytes=16 << 20,
    )
    await consumer.start()
    began, cpu, read = time.perf_counter(), time.process_time(), 0
    while read < EVENTS:
        for records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
            for record in records:
                decode(record.value)
            read += len(records)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await consumer.stop()
    return EVENTS / took, cpu / EVENTS


async def consume(url, sink):
    """Read everything into a sink."""
    loop = Loop(
        read_settings(KafkastoreSettings, {"KAFKA_URL": url}), sink, Progress("bench"), until_end=True
    )
    began, cpu = time.perf_counter(), time.process_time()
    await loop.run(asyncio.Event())
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await sink.close()
    return EVENTS / took, cpu / EVENTS


async def totals(url, postgres_url, number):
    database_url = await new_database(postgres_url, f"totals_{number}")
    sink = Totals(database_url, visitor_days=35)
    await sink.positions("none", {})
    store = LinkStore(database_url)
    await store.save([link_of({"id": link, "campaign": "x"}) for link in range(1, LINKS + 1)])
    await store.close()
    figures = await consume(url, sink)
    connection = await asyncpg.connect(database_url)
    counted = await connection.fetchval("SELECT sum(total_clicks) FROM links")
    await connection.close()
    if counted != EVENTS:
        sys.exit(f"{counted} events were counted, of {EVENTS}")
    return figures


async def clickhouse(url, server_url, number):
    server = ClickHouseServer(SecretStr(f"{server_url}/default"))
    await server.ask(f"CREATE DATABASE bench_{number}")
    await server.close()
    return await consume(url, ClickHouse(SecretStr(f"{server_url}/bench_{number}")))


@contextmanager
def running_clickhouse(directory):
    port = free_port()

    def answers():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1):
                return True
        except OSError:
            return False

    front = str(TESTS / "clickhouse_front.py")
    child = Child(
        Program(
            name="clickhouse",
            directory=directory,
            argv=(sys.executable, front, str(port), str(directory / "data")),
            ports=(port,),
            answers=answers,
        )
    )
    child.start()
    try:
        yield f"http://analyst:p%40ss%2Fword@127.0.0.1:{port}"
    finally:
        child.stop()


async def new_database(postgres_url, name):
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres_url.rpartition("/")[0] + f"/{name}"


def main():
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL does not run as root
        with (
            running_real_kafka(directory / "kafka") as kafka,
            running_postgres(directory / "postgres") as postgres_url,
            running_clickhouse(directory / "clickhouse") as clickhouse_url,
        ):
            asyncio.run(fill(kafka.bootstrap))
            figures = {"read and decode": [], "totals into PostgreSQL": [], "clickhouse": []}
            for number in range(ROUNDS):
                baseline = asyncio.run(read_and_decode(kafka.bootstrap))
                counted = asyncio.run(totals(kafka.url, postgres_url, number))
                stored = asyncio.run(clickhouse(kafka.url, clickhouse_url, number))
                for found, figure in zip(figures.values(), (baseline, counted, stored), strict=True):
                    found.append(figure)
    for what, found in figures.items():
        rates, costs = zip(*found, strict=True)
        print(
            f"{what:<24} {statistics.median(rates):9,.0f} events/s  ({min(rates):,.0f} – {max(rates):,.0f})"
            f"   {statistics.median(costs) * 1e6:5.1f} µs of one core each"
        )


if __name__ == "__main__":
    main()
