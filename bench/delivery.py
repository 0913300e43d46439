"""Events a second of `kafkastore run`, from Redis to Apache Kafka, one core: `.venv/bin/python bench/delivery.py`.

The kafkastore on one core, Redis and the broker on another. A queue of lines is filled and moved to its end, row by
row in turns. `bare` is what aiokafka itself costs: the same number of ready records in transactions of the same
size, without Redis. `moved only` is claim → publish → forget with the line itself as the value, no enrichment.
CPU µs is the process's own time an event; where requests a second are lower than it allows, the broker is the limit.
Compare rows of one run with each other: machines differ and are shared.
"""

import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from collector.queue import open_redis, queue_keys
from embedded import apache_kafka
from embedded.apache_kafka import running_apache_kafka
from embedded.redis import running_redis
from geoip.database import open_database
from kafkastore.outgoing import Outgoing
from kafkastore.pipeline import Pipeline
from kafkastore.publisher import open_publisher
from kafkastore.queue import MOST_LINES, Batch, Queue
from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics
from process.settings import read_settings

EVENTS = int(os.environ.get("EVENTS", "200000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
PARTITIONS = 6
OWN_CORE, SERVERS_CORE = {0}, {1}
AGENTS = 30_000

ROWS = {
    "bare aiokafka, ready records": ("bare", {}),
    "moved only, exactly_once": ("moved", {}),
    "moved only, at_least_once": ("moved", {"DELIVERY": "at_least_once"}),
    "enriched, JSON, exactly_once": ("enriched", {}),
    "enriched, JSON, at_least_once": ("enriched", {"DELIVERY": "at_least_once"}),
    "enriched, text, exactly_once": ("enriched", {"VALUE_FORMAT": "adtekio"}),
}


def lines(rng):
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
    for number in range(EVENTS):
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
    redis = open_redis(settings.redis_urls[0], tls_insecure=False)
    queue = Queue(redis, queue_keys(1)[0])
    await ensure_topics(settings)
    began, cpu = time.perf_counter(), time.process_time()
    if how == "bare":
        await publish_bare(settings)
    else:
        kind = Mover if how == "moved" else Pipeline
        places = open_database(settings.geoip_db)
        await kind(settings, places.place_of, until_empty=True).run([queue], asyncio.Event())
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]))
    await redis.aclose()


async def publish_bare(settings):
    line = next(lines(random.Random(1)))
    async with open_publisher(settings, "00000000-0000-4000-8000-000000000000") as publisher:
        for begin in range(0, EVENTS, MOST_LINES):
            some = [line[:-8] + b"%08d" % number for number in range(begin, begin + MOST_LINES)]
            batch = Batch(str(begin), None, some)
            await publisher.publish(Outgoing(batch, dict(enumerate(map(plain, some)))))


async def fill(redis_url, prepared):
    async with Redis.from_url(redis_url) as redis:
        await redis.delete("click_queue")
        for begin in range(0, len(prepared), 5000):
            await redis.rpush("click_queue", *prepared[begin : begin + 5000])


def prefix(row):
    return f"bench{list(ROWS).index(row)}."


def measure(row, environ, prepared):
    how, more = ROWS[row]
    if how != "bare":
        asyncio.run(fill(environ["REDIS_URL"], prepared))
    done = subprocess.run(
        [sys.executable, __file__, how],
        env={**os.environ, **environ, **more, "KAFKA_PREFIX": prefix(row), "LOG_LEVEL": "error"},
        preexec_fn=lambda: os.sched_setaffinity(0, OWN_CORE),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return EVENTS / wall, cpu / EVENTS * 1e6


def main():
    os.sched_setaffinity(0, SERVERS_CORE)
    apache_kafka.JVM = ("-XX:+UseSerialGC", "-Xms32m")  # compiled as a broker that stays
    found = shutil.which("redis-server")
    prepared = list(lines(random.Random(1)))
    with (
        tempfile.TemporaryDirectory(prefix="onward-bench-") as name,
        running_redis(Path(name) / "redis", binary=found and Path(found)) as redis,
        running_apache_kafka(Path(name) / "kafka") as kafka,
    ):
        environ = {"REDIS_URL": redis.url, "KAFKA_URL": kafka.url, "KAFKA_PARTITIONS": str(PARTITIONS)}
        figures = {row: [] for row in ROWS}
        for row in ROWS:
            measure(row, environ, prepared)  # warm
        for _ in range(ROUNDS):
            for row, found in figures.items():
                found.append(measure(row, environ, prepared))
    print(f"{EVENTS:,} events of about {len(prepared[0])} bytes, {ROUNDS} rounds")
    print(f"{'':<32}{'events/s':>10}{'spread':>20}{'CPU µs':>8}{'events a CPU s':>16}")
    for row, found in figures.items():
        rates, cpus = zip(*found, strict=True)
        spread = f"{min(rates):,.0f} – {max(rates):,.0f}"
        cpu = statistics.median(cpus)
        print(f"{row:<32}{statistics.median(rates):>10,.0f}{spread:>20}{cpu:>8.1f}{1e6 / cpu:>16,.0f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(run_row(sys.argv[1]))
    else:
        main()
