"""Events of `kafkastore run`, from Redis to Apache Kafka, one core: part of `make bench`.

The kafkastore on one core, Redis and the broker on another. A queue of lines is filled and moved to its end, row by
row in turns. `bare` is what aiokafka itself costs: the same number of ready records in transactions of the same
size, without Redis. `moved only` is claim → publish → forget with the line itself as the value, no enrichment.
CPU µs is the process's own time an event; where events a second are fewer than it allows, the broker is the limit.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import uvloop
from redis.asyncio import Redis
from rig import CLIENT_CORE, SERVER_CORE, lasting_kafka, need, redis
from table import Row, in_turns, rows, show

from collector.queue import open_redis, queue_keys
from geoip.database import open_database
from kafkastore.outgoing import Outgoing
from kafkastore.pipeline import Pipeline
from kafkastore.publisher import open_publisher
from kafkastore.queue import MOST_LINES, Batch, Queue
from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics
from process.settings import read_settings

EVENTS = int(os.environ.get("EVENTS", "100000"))
PARTITIONS = 6
AGENTS = 30_000

BARE = "bare aiokafka, ready records"
ROWS = {
    BARE: ("bare", {}),
    "moved only, exactly_once": ("moved", {}),
    "moved only, at_least_once": ("moved", {"DELIVERY": "at_least_once"}),
    "enriched, JSON, exactly_once": ("enriched", {}),
    "enriched, JSON, at_least_once": ("enriched", {"DELIVERY": "at_least_once"}),
    "enriched, text, exactly_once": ("enriched", {"VALUE_FORMAT": "adtekio"}),
}


def lines(rng, events):
    """Give click lines as a collector writes them: agents and addresses by Zipf's law, every adid another."""
    agents = [
        f"Mozilla/5.0 (Linux; Android {10 + n % 5}; SM-A{n // 90}B) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/12{n % 10}.0.{n % 6000}.{n % 200} Mobile Safari/537.36"
        if n % 2
        else f"Mozilla/5.0 (iPhone; CPU iPhone OS {14 + n % 5}_{n % 7} like Mac OS X) AppleWebKit/605.1.15 "
        f"(KHTML, like Gecko) Version/{14 + n % 5}.{n % 7} Mobile/15E{n} Safari/604.1"
        for n in range(AGENTS)
    ]
    now = time.time()
    for number in range(events):
        at = time.strftime("%Y-%m-%dT%H%%3A%M%%3A%S", time.gmtime(now))
        agent = agents[min(int(rng.paretovariate(0.8)) - 1, AGENTS - 1) % AGENTS]
        address = ".".join(str(rng.randrange(1, 255)) for _ in range(4))
        yield (
            f"{address} {int(now)} clicks /t/click ad&adgroup=&adid={rng.getrandbits(128):032X}"
            f"&attr_window_from={at}%2B00%3A00&attr_window_till={at}%2B00%3A00&campaign=Winter%20Sale"
            f"&campaign_link_id={number % 2000}&click=c{number}&clicked_at={at}.123Z&created_at={at}%2B00%3A00"
            f"&event_id=019c13ec-9e7b-7a01-8000-{number:012x}&idfa_comb&lookup_key={rng.getrandbits(128):032x}"
            f"&network=7games&partner_data&redirect_url=https%3A%2F%2Fapps.example%2Fi&reqparams=x%3D{number}"
            f"&slug=winter&trigger=link&user_id=9&utm_source=newsletter {agent}"
        ).encode()


class Mover(Pipeline):
    """A pipeline whose records are the lines as they are."""

    async def _outgoing(self, batch):
        return Outgoing(batch, dict(enumerate(map(plain, batch.lines))))


def plain(line):
    key = line[-40:-8]
    return Record("clicks", key, line, time.time_ns() // 1_000_000, [])


async def run_row(how):
    settings = read_settings(KafkastoreSettings, os.environ)
    client = open_redis(settings.redis_urls[0], tls_insecure=False)
    queue = Queue(client, queue_keys(1)[0])
    await ensure_topics(settings)
    began, cpu = time.perf_counter(), time.process_time()
    if how == "bare":
        await publish_bare(settings)
    else:
        kind = Mover if how == "moved" else Pipeline
        places = open_database(settings.geoip_db)
        await kind(settings, places.place_of, until_empty=True).run([queue], asyncio.Event())
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]))
    await client.aclose()


async def publish_bare(settings):
    line = next(lines(random.Random(1), 1))
    async with open_publisher(settings, "00000000-0000-4000-8000-000000000000") as publisher:
        for begin in range(0, EVENTS, MOST_LINES):
            some = [line[:-8] + b"%08d" % number for number in range(begin, begin + MOST_LINES)]
            batch = Batch(str(begin), None, some)
            await publisher.publish(Outgoing(batch, dict(enumerate(map(plain, some)))))


async def fill(redis_url, prepared):
    async with Redis.from_url(redis_url) as client:
        await client.delete("click_queue")
        for begin in range(0, len(prepared), 5000):
            await client.rpush("click_queue", *prepared[begin : begin + 5000])


def prefix(row):
    return f"bench{list(ROWS).index(row)}."


def move(row, environ, prepared):
    """Fill the queue and move it in a process of its own; gives (microseconds of its processor, events a second)."""
    how, more = ROWS[row]
    if how != "bare":
        asyncio.run(fill(environ["REDIS_URL"], prepared))
    done = subprocess.run(
        ["taskset", "--cpu-list", str(SERVER_CORE), sys.executable, __file__, how],
        env={**os.environ, **environ, **more, "KAFKA_PREFIX": prefix(row), "LOG_LEVEL": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return cpu / len(prepared) * 1e6, len(prepared) / wall


def measure(*, rounds: int, events: int = EVENTS) -> list[Row]:
    """Give every row, in the processor's time of each event and in events a second."""
    need(taskset="util-linux")
    prepared = list(lines(random.Random(1), events))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CORE})  # the servers inherit it
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-")))
            server = redis(stack, directory / "redis")
            kafka = stack.enter_context(lasting_kafka(directory / "kafka"))
            environ = {
                "REDIS_URL": server.url,
                "KAFKA_URL": kafka.url,
                "KAFKA_PARTITIONS": str(PARTITIONS),
                "EVENTS": str(events),
            }
            for row in ROWS:
                move(row, environ, prepared)  # warm
            found = in_turns({row: partial(move, row, environ, prepared) for row in ROWS}, rounds)
    finally:
        os.sched_setaffinity(0, before)
    beside = {row: BARE for row in ROWS if row != BARE}
    return [
        *rows({row: [cpu for cpu, _ in each] for row, each in found.items()}, "CPU µs", beside),
        *rows(
            {f"{row}, a second": [rate for _, rate in each] for row, each in found.items()},
            "events/s",
            {f"{row}, a second": f"{BARE}, a second" for row in beside},
        ),
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(run_row(sys.argv[1]))
    else:
        show(measure(rounds=3))
