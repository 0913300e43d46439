"""What load balancers and operators are told, while Redis, the database and the disk come and go."""

import asyncio
import json
import os
import signal
import time

import aiohttp
import pytest
from processes import healthy, running
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from test_links import family

from embedded.ports import free_port
from embedded.postgres import running_postgres
from embedded.redis import running_redis


def environ_of(tmp_path, redis_url, **more):
    return {
        "PORT": free_port(),
        "HOST": "127.0.0.1",
        "METRICS_PORT": free_port(),
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": tmp_path / "journal",
        "LOG_LEVEL": "error",
        **more,
    }


def collector(tmp_path, environ):
    return running(tmp_path, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ)


async def ask(port, path, method="GET"):
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        client.request(method, path, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.text()


async def ready(port):
    status, text = await ask(port, "/readyz")
    answer = json.loads(text)
    return status, answer["status"], answer["reasons"]


MACHINE_SECONDS = 2
"""What a machine that others use too may take longer."""


async def until_ready(port, expected, seconds):
    """Wait for an answer of /readyz for the seconds that the contract gives it, and what the machine may take."""
    deadline = time.monotonic() + seconds + MACHINE_SECONDS
    while (found := await ready(port)) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def metrics(port):
    """Give (name, labels without the worker) → sum over all workers."""
    _, text = await ask(port, "/metrics")
    found = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "worker"))
            found[sample.name, labels] = found.get((sample.name, labels), 0) + sample.value
    return found


READY = (200, "ready", [])


async def test_a_redis_that_goes_and_comes_back_is_told_in_time_and_costs_no_visitor(tmp_path):
    with running_redis(tmp_path / "redis") as server:
        environ = environ_of(tmp_path, server.url)
        with collector(tmp_path, environ):
            port = environ["PORT"]
            await until_ready(port, READY, 5)
            assert await ask(port, "/check") == (200, "OK")
            os.kill(server.pid, signal.SIGSTOP)
            await until_ready(port, (200, "degraded", ["Redis 1 of 1 away"]), 2)
            os.kill(server.pid, signal.SIGCONT)
            await until_ready(port, READY, 5)
            server.kill()
            await until_ready(port, (200, "degraded", ["Redis 1 of 1 away"]), 2)
            assert await ask(port, "/check") == (503, "Database unreachable")
            assert (await ask(port, "/click/1/go"))[0] == 404
            server.start()
            await until_ready(port, READY, 5)


async def test_a_redis_that_takes_no_events_is_told_with_the_reason(tmp_path, redis_binary):
    with running_redis(tmp_path / "redis", binary=redis_binary) as server:
        environ = environ_of(tmp_path, server.url)
        with collector(tmp_path, environ):
            port = environ["PORT"]
            await until_ready(port, READY, 5)
            async with Redis.from_url(server.url) as redis:
                for setting, full, free, why in (
                    ("maxmemory", "1mb", "0", "is full"),
                    ("min-replicas-to-write", "1", "0", "refuses events"),
                ):
                    await redis.config_set(setting, full)
                    assert (await ask(port, "/click/1/go"))[0] == 404
                    await until_ready(port, (200, "degraded", [f"Redis 1 of 1 {why} (click_queue)"]), 2)
                    await redis.config_set(setting, free)
                    await until_ready(port, READY, 5)
                await redis.replicaof("127.0.0.1", 1)
                assert (await ask(port, "/click/1/go"))[0] == 404
                await until_ready(port, (200, "degraded", ["Redis 1 of 1 is read-only (click_queue)"]), 2)
                await redis.replicaof("NO", "ONE")
                await until_ready(port, READY, 5)


async def test_a_database_that_hangs_is_told_in_time(tmp_path, redis_server, redis, open_directory):
    folder = open_directory / "health"
    with running_postgres(folder, port=free_port()) as url:
        environ = environ_of(tmp_path, redis_server.url, DATABASE_URL=url)
        with collector(tmp_path, environ):
            await until_ready(environ["PORT"], READY, 5)
            stopped = family(int((folder / "data" / "postmaster.pid").read_text().split()[0]))
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                expected = (200, "degraded", ["the database of links is slow"])
                await until_ready(environ["PORT"], expected, 2)
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            await until_ready(environ["PORT"], READY, 5)


async def test_a_collector_that_never_had_links_wants_no_visitors(
    tmp_path, redis_server, redis, open_directory
):
    folder, port = open_directory / "late", free_port()
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    environ = environ_of(tmp_path, redis_server.url, DATABASE_URL=url)
    with collector(tmp_path, environ):
        status, told, reasons = await ready(environ["PORT"])
        assert (status, told) == (503, "not ready")
        assert reasons == ["no link table was ever loaded", "the database of links is away"]
        assert await ask(environ["PORT"], "/healthz") == (200, "OK")
        with running_postgres(folder, port=port):
            await until_ready(environ["PORT"], READY, 5)
        await until_ready(environ["PORT"], (200, "degraded", ["the database of links is away"]), 2)


async def test_a_journal_over_half_full_or_unwritable_wants_no_visitors_until_it_can_take_them(tmp_path):
    with running_redis(tmp_path / "redis") as server:
        environ = environ_of(tmp_path, server.url, JOURNAL_MAX_BYTES=1024**2)
        with collector(tmp_path, environ):
            port = environ["PORT"]
            await until_ready(port, READY, 5)
            server.kill()
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                for _ in range(200):
                    async with client.get(f"/click/1/go?x={'y' * 4000}") as answer:
                        assert answer.status == 404
            full = ["the journal is over half full", "Redis 1 of 1 away"]
            await until_ready(port, (503, "not ready", full), 2)
            server.start()
            await until_ready(port, READY, 5)
            (journal,) = (tmp_path / "journal").iterdir()
            (journal / "probe").mkdir()  # what stands in the way of a write, for root too
            await until_ready(port, (503, "not ready", ["the journal cannot be written"]), 2)
            (journal / "probe").rmdir()
            await until_ready(port, READY, 5)


async def test_metrics_count_for_all_processes_on_their_own_port_only(tmp_path, redis_server, redis):
    environ = environ_of(tmp_path, redis_server.url, WEB_CONCURRENCY=3)
    with collector(tmp_path, environ):
        for _ in range(30):  # each on a connection of its own, so that every process gets some
            assert (await ask(environ["PORT"], "/click/1/go"))[0] == 404
        await ask(environ["PORT"], "/no.such/path")
        await ask(environ["PORT"], "/robots.txt", "DELETE")
        assert (await ask(environ["PORT"], "/metrics"))[0] == 404
        wanted = {
            ("onward_requests_total", (("route", "click"), ("status", "404"))): 30,
            ("onward_requests_total", (("route", "none"), ("status", "404"))): 1,
            ("onward_requests_total", (("route", "robots"), ("status", "405"))): 1,
            ("onward_request_seconds_count", (("route", "click"),)): 30,
            ("onward_events_recorded_total", (("topic", "orphans"),)): 30,
            ("onward_lanes", ()): 3,
            ("onward_lanes_failing", ()): 0,
        }
        # Each process tells once a second, and the first answers while the others are still starting.
        deadline = time.monotonic() + 30
        counted = await metrics(environ["METRICS_PORT"])
        while (found := {name: counted.get(name) for name in wanted}) != wanted:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)
            counted = await metrics(environ["METRICS_PORT"])
        assert counted["process_resident_memory_bytes", ()] > 3e7
        assert await ready(environ["METRICS_PORT"]) == READY
        assert await ask(environ["METRICS_PORT"], "/healthz") == (200, "OK")
        assert (await ask(environ["METRICS_PORT"], "/click/1/go"))[0] == 404
        assert (await ask(environ["METRICS_PORT"], "/metrics", "POST"))[0] == 405


@pytest.mark.parametrize(("public", "status"), [("0", 404), ("1", 200)])
async def test_metrics_are_public_only_where_that_is_wanted(tmp_path, redis_server, redis, public, status):
    environ = environ_of(tmp_path, redis_server.url, METRICS_PUBLIC=public, METRICS_PORT="")
    with collector(tmp_path, environ):
        assert (await ask(environ["PORT"], "/metrics"))[0] == status
