"""A process told to stop more than once, as impatient platforms do, ends as if told once."""

import signal
import subprocess
import sys
import time

import pytest
from processes import SCRIPTS

from embedded.ports import free_port

TOLD_AGAIN_SECONDS = 0.002
MOST_SECONDS = 30


def end_told_again_and_again(process: subprocess.Popen) -> int:
    """Send SIGTERM until the process is gone; give its exit code."""
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(TOLD_AGAIN_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError("it did not stop")


PROGRAM = """
import asyncio
from process.run import run, stop_on_signals

async def main():
    stop = stop_on_signals()
    print("ready", flush=True)
    await stop.wait()
    return 0

run(main)
"""


def test_signals_after_the_first_change_nothing():
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            assert end_told_again_and_again(process) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_collector_told_to_stop_again_and_again_ends_with_0(tmp_path, redis_server, processes):
    environ = {
        "PORT": str(free_port()),
        "HOST": "127.0.0.1",
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/links.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "WEB_CONCURRENCY": str(processes),
    }
    with subprocess.Popen(
        [SCRIPTS / "collector", "serve"],
        env=environ,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        started = 0
        while started < processes:
            started += b'"collector_started"' in process.stdout.readline()
        assert end_told_again_and_again(process) == 0
