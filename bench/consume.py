"""Events a second of the consumers, beside a loop that only reads and decodes: part of `make bench`.

One Apache Kafka, one PostgreSQL and one ClickHouse on this machine, as the tests have them; six partitions; clicks of
2,000 links (a few of them busy), by visitors most of whom come once. All begin at the oldest event, in turns. CPU µs
is what this process itself takes. The servers have theirs; ClickHouse is slow here, behind its front of the tests.
"""

import asyncio
import itertools
import json
import random
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer
from pydantic import SecretStr
from shared import Shared
from table import Row, in_turns, rows

from consumers.clickhouse import ClickHouse
from consumers.clickhouse_server import ClickHouseServer
from consumers.counts import decode
from consumers.loop import Loop
from consumers.progress import Progress
from consumers.totals import Totals
from embedded.ports import free_port
from embedded.postgres import running_postgres
from embedded.server import Child, Program
from kafkastore.settings import KafkastoreSettings
from links.link import link_of
from links.store import LinkStore
from process.settings import read_settings

BARE = "consumer: reads and decodes, no more"
TOTALS = "consumer: totals into PostgreSQL"
CLICKHOUSE = "consumer: clickhouse"
PREFIX = "consume."
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


def values(rng, events):
    example = click()
    for number in range(events):
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


async def fill(bootstrap, events):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics(
        [NewTopic(PREFIX + topic, PARTITIONS, 1) for topic in ("clicks", "referrals", "bots")]
    )
    await admin.close()
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
    )
    for number, value in enumerate(values(random.Random(1), events)):
        producer.produce(f"{PREFIX}clicks", value, partition=number % PARTITIONS)
        producer.poll(0)
    producer.flush(60)


async def read_and_decode(bootstrap, events):
    """Read and decode everything, and do nothing with it."""
    consumer = AIOKafkaConsumer(
        f"{PREFIX}clicks",
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
        fetch_max_bytes=16 << 20,
    )
    await consumer.start()
    began, cpu, read = time.perf_counter(), time.process_time(), 0
    while read < events:
        for records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
            for record in records:
                decode(record.value)
            read += len(records)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await consumer.stop()
    return events / took, cpu / events * 1e6


async def consume(url, sink, events):
    """Read everything into a sink."""
    settings = read_settings(KafkastoreSettings, {"KAFKA_URL": url, "KAFKA_PREFIX": PREFIX})
    loop = Loop(settings, sink, Progress("bench"), until_end=True)
    began, cpu = time.perf_counter(), time.process_time()
    await loop.run(asyncio.Event())
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await sink.close()
    return events / took, cpu / events * 1e6


async def totals(url, postgres_url, number, events):
    database_url = await new_database(postgres_url, f"totals_{number}")
    sink = Totals(database_url, visitor_days=35)
    await sink.positions("none", {})
    store = LinkStore(database_url)
    await store.save([link_of({"id": link, "campaign": "x"}) for link in range(1, LINKS + 1)])
    await store.close()
    figures = await consume(url, sink, events)
    connection = await asyncpg.connect(database_url)
    counted = await connection.fetchval("SELECT sum(total_clicks) FROM links")
    await connection.close()
    if counted != events:
        sys.exit(f"{counted} events were counted, of {events}")
    return figures


async def clickhouse(url, server_url, number, events):
    server = ClickHouseServer(SecretStr(f"{server_url}/default"))
    await server.ask(f"CREATE DATABASE bench_{number}")
    await server.close()
    return await consume(url, ClickHouse(SecretStr(f"{server_url}/bench_{number}")), events)


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


def measure(shared: Shared) -> list[Row]:
    """Give the processor's time of an event and events a second of each; nothing when it must be quick."""
    events = 3 * shared.effort.events
    if shared.effort.quick:  # their servers take longer to start than all the rest
        return []
    kafka = shared.kafka
    with (
        running_postgres(shared.directory / "postgres") as postgres_url,
        running_clickhouse(shared.directory / "clickhouse") as clickhouse_url,
    ):
        asyncio.run(fill(kafka.bootstrap, events))
        number = itertools.count()
        found = in_turns(
            {
                BARE: lambda: asyncio.run(read_and_decode(kafka.bootstrap, events)),
                TOTALS: lambda: asyncio.run(totals(kafka.url, postgres_url, next(number), events)),
                CLICKHOUSE: lambda: asyncio.run(clickhouse(kafka.url, clickhouse_url, next(number), events)),
            },
            shared.effort.few_rounds,
        )
    return [
        *rows(
            {name: [cpu for _, cpu in some] for name, some in found.items()},
            "CPU µs",
            dict.fromkeys((TOTALS, CLICKHOUSE), BARE),
        ),
        *rows(
            {f"{name}, a second": [rate for rate, _ in some] for name, some in found.items()},
            "events/s",
            dict.fromkeys((f"{TOTALS}, a second", f"{CLICKHOUSE}, a second"), f"{BARE}, a second"),
        ),
    ]
