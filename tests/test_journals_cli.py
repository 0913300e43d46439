"""Journals whose Redis is gone for good: seen by operators, and shipped elsewhere when a person says so."""

import asyncio
import subprocess
import time

import pytest
from processes import SCRIPTS
from redis.asyncio import Redis
from test_health import READY, ask, collector, environ_of, metrics, until_ready

from embedded.redis import running_redis


@pytest.fixture
def journals(tmp_path):
    def command(environ, *arguments, answer=""):
        return subprocess.run(
            [SCRIPTS / "collector", "journals", *arguments],
            env={name: str(value) for name, value in environ.items()},
            cwd=tmp_path,
            input=answer,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return command


async def until_queued(redis, lines, seconds=30):
    deadline = time.monotonic() + seconds
    while (found := await redis.llen("click_queue")) != lines:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def test_a_stranded_journal_is_told_and_goes_where_a_person_sends_it(tmp_path, journals):
    with running_redis(tmp_path / "redis") as server:
        environ = environ_of(tmp_path, server.url)
        with collector(tmp_path, environ) as dying:
            await until_ready(environ["PORT"], READY, 5)
            await ask(environ["PORT"], "/first")
            async with Redis.from_url(server.url) as redis:
                await until_queued(redis, 1)
            server.kill()
            for _ in range(3):
                await ask(environ["PORT"], "/unknown")
            dying.kill()
        (segment,) = (tmp_path / "journal").glob("*/*.segment")
        with segment.open("ab") as file:
            file.write(b"\xff" * 5)  # as a crash leaves it
        server.start()
        async with Redis.from_url(server.url) as redis:
            await redis.flushall()
            with collector(tmp_path, environ):
                seen = ["journals that no Redis of ours may take: 1 (see: collector journals list)"]
                await until_ready(environ["PORT"], (200, "degraded", seen), 5)
                assert (await metrics(environ["METRICS_PORT"]))["onward_journals_stranded", ()] == 1
                listed = journals(environ, "list").stdout
                assert listed.count("stranded") == 1
                assert listed.count("in use") == 1

                unknown = journals(environ, "rebind", "nobody", "--yes")
                assert (unknown.returncode, unknown.stderr) == (
                    1,
                    "Not stranded: nobody. See: collector journals list\n",
                )
                refused = journals(environ, "rebind", answer="n\n")
                assert refused.returncode == 1
                assert "will be there twice" in refused.stdout
                assert await redis.llen("click_queue") == 0

                assert journals(environ, "rebind", "--yes").returncode == 0
                await until_ready(environ["PORT"], READY, 5)
                await until_queued(redis, 4)
                lines = await redis.lrange("click_queue", 0, -1)
                assert [b"path=%2Ffirst" in line for line in lines] == [True, False, False, False]
                counted = await metrics(environ["METRICS_PORT"])
                assert counted["onward_journals_stranded", ()] == 0
                assert counted["onward_journal_torn_bytes_total", ()] == 5
                assert journals(environ, "rebind").stdout == "no journal is stranded\n"


async def test_a_journal_that_cannot_be_read_is_told_with_the_reason(tmp_path, journals):
    with running_redis(tmp_path / "redis") as server:
        environ = environ_of(tmp_path, server.url)
        unreadable = tmp_path / "journal" / "00000000-0000-4000-8000-000000000000"
        (unreadable / "lock").mkdir(parents=True)
        with collector(tmp_path, environ):
            seen = ["journals that cannot be read: 1 (see: collector journals list)"]
            await until_ready(environ["PORT"], (200, "degraded", seen), 5)
            assert (await metrics(environ["METRICS_PORT"]))["onward_journals_unreadable", ()] == 1
            listed = journals(environ, "list").stdout
            assert [line.split("\t")[3] for line in listed.splitlines()] == [
                "state",
                "cannot be read",
                "in use",
            ]
            assert "Is a directory" in listed
            assert journals(environ, "rebind").stdout == "no journal is stranded\n"
            (unreadable / "lock").rmdir()
            await until_ready(environ["PORT"], READY, 5)


def test_a_redis_that_does_not_answer_is_one_sentence_with_the_cure(tmp_path, journals):
    done = journals(environ_of(tmp_path, "redis://127.0.0.1:1/0"), "list")
    assert done.returncode == 1
    assert "Start it." in done.stderr
    assert "Traceback" not in done.stderr
