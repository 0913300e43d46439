"""One port, several processes: who dies is replaced, and who cannot start says why."""

import asyncio
import socket
import subprocess
import time
from pathlib import Path

import pytest
from processes import SCRIPTS, healthy, running

from embedded.ports import free_port
from process.tasks import end, until_stopped


@pytest.fixture
def environ(redis, redis_server, tmp_path):
    return {
        "PORT": free_port(),
        "HOST": "127.0.0.1",
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": tmp_path / "journal",
    }


def start(environ):
    return subprocess.run(
        [SCRIPTS / "collector", "serve"],
        env={name: str(value) for name, value in environ.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def workers_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "that took too long"
        time.sleep(0.05)


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="looks for children in /proc: run it on Linux"
)
def test_a_process_that_dies_is_replaced_and_the_port_stays_open(environ, tmp_path):
    environ["WEB_CONCURRENCY"] = 2
    with running(
        tmp_path, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ
    ) as parent:
        until(lambda: len(workers_of(parent.pid)) == 2)
        first, second = workers_of(parent.pid)
        subprocess.run(["kill", "-9", str(first)], check=True)
        until(lambda: set(workers_of(parent.pid)) - {first, second})
        assert healthy(environ["PORT"])
        replaced = workers_of(parent.pid)
    assert parent._process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in replaced)


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="looks for children in /proc: run it on Linux"
)
def test_no_process_outlives_a_parent_that_was_killed(environ, tmp_path):
    environ["WEB_CONCURRENCY"] = 2
    with running(
        tmp_path, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ
    ) as parent:
        until(lambda: len(workers_of(parent.pid)) == 2)
        orphans = workers_of(parent.pid)
        subprocess.run(["kill", "-9", str(parent.pid)], check=True)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))


def test_a_port_in_use_is_one_sentence_with_the_cure(environ):
    with socket.create_server(("127.0.0.1", environ["PORT"])):
        done = start(environ)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Cannot listen on 127.0.0.1 port {environ['PORT']}")
    assert "set PORT to another one" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_journal_that_cannot_be_written_is_one_sentence_with_the_cure(environ, tmp_path):
    (tmp_path / "journal").write_text("a file, not a folder")
    done = start(environ)
    assert done.returncode == 1
    assert "set JOURNAL_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_what_is_missing_and_the_cure(environ, tmp_path):
    environ |= {
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "KAFKA_URL": "kafka://127.0.0.1:1",
        "GEOIP_DB": tmp_path / "no",
    }
    environment = {name: str(value) for name, value in environ.items()}
    for command, cures in (
        ("collector", ["mend REDIS_URL"]),
        ("kafkastore", ["REDIS_URL", "KAFKA_URL", "GEOIP_DB"]),
    ):
        done = subprocess.run(
            [SCRIPTS / command, "check"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == len(cures)
        for line, cure in zip(done.stdout.splitlines(), cures, strict=True):
            assert cure in line


def test_several_processes_that_cannot_start_do_not_try_for_ever(environ, tmp_path):
    (tmp_path / "journal").write_text("a file, not a folder")
    done = start(environ | {"WEB_CONCURRENCY": 2})
    assert done.returncode == 1
    assert "set JOURNAL_DIR" in done.stderr


async def test_a_task_that_ends_by_itself_ends_the_process_and_says_why():
    stop = asyncio.Event()

    async def break_down():
        raise ValueError("a row that is no link")

    with pytest.raises(ValueError, match="a row that is no link"):
        await until_stopped(stop, [asyncio.create_task(break_down())])
    stop.set()
    waiting = asyncio.create_task(asyncio.Event().wait())
    await until_stopped(stop, [waiting])
    await end({waiting})
