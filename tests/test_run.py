"""`make run`, as a newcomer meets it: events on the screen, Ctrl-C, closed books."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from embedded.books import Books
from embedded.ports import free_port


@pytest.fixture
def environ():
    hidden = {"REDIS_URL", "KAFKA_URL", "DATABASE_URL", "TRAFFIC", "EMBEDDED_KAFKA"}
    return {name: value for name, value in os.environ.items() if name not in hidden} | {
        "PORT": str(free_port())
    }


def start(environ, directory):
    return subprocess.Popen(
        [sys.executable, "-m", "embedded"], env=environ, cwd=directory, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("kafka", ["in memory", "apache"])
def test_visitors_are_seen_and_the_books_close_on_the_second_run_too(environ, tmp_path, kafka):
    environ["EMBEDDED_KAFKA"] = kafka
    for _ in range(2):
        with start(environ, tmp_path) as run:
            said = []
            for line in run.stdout:
                said.append(line)
                if (
                    len(
                        [
                            one
                            for one in said
                            if re.match(r"\d\d:\d\d:\d\d (clicks|bots|orphans) .*lag=\d", one)
                        ]
                    )
                    == 5
                ):
                    break
            stopping = time.monotonic()
            run.send_signal(signal.SIGINT)
            closing = run.stdout.read().splitlines()[-1]
            assert run.wait(10) == 0
            assert time.monotonic() - stopping < 10
        assert any("REDIS_URL takes a real one" in line for line in said)
        assert any("curl -i -A 'iPhone'" in line for line in said)
        numbers = [int(number) for number in re.findall(r"\d+", closing)]
        assert re.fullmatch(r"received \d+ = stored \d+ \+ bots \d+ \+ dead 0 \+ queued 0; lost 0", closing)
        assert numbers[0] == sum(numbers[1:5]) >= 5


def reader_of(run):
    """Find the process that shows what a run has stored."""
    for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text("ascii").split():
        if b"\0tail\0" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("a run has a reader")


def test_a_reader_that_is_late_is_waited_for_before_the_books_close(environ, tmp_path):
    with start(environ, tmp_path) as run:
        for line in run.stdout:
            if " lag=" in line:
                break
        reader = reader_of(run)
        os.kill(reader, signal.SIGSTOP)
        time.sleep(2)  # eight visitors come meanwhile
        run.send_signal(signal.SIGINT)
        log = tmp_path / "var" / "kafkastore" / "kafkastore.log"
        deadline = time.monotonic() + 10
        while "kafkastore_stopped" not in log.read_text("utf-8"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)  # nothing but the reader is waited for now
        os.kill(reader, signal.SIGCONT)
        closing = run.stdout.read().splitlines()[-1]
        assert run.wait(10) == 0
    assert closing.endswith("lost 0"), closing


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_an_earlier_run_left_behind_is_carried_over(environ, tmp_path):
    """Everything is killed with clicks under way; the next run finds them in the journal and in Redis."""
    with start(environ, tmp_path) as run:
        for line in run.stdout:
            if line.startswith("Events"):
                break
        run.kill()
    deadline = time.monotonic() + 20
    while any(is_alive(int(file.read_text("ascii"))) for file in tmp_path.glob("var/*/*.pid")):
        assert time.monotonic() < deadline, "what it started ends with it"
        time.sleep(0.05)
    with start(environ | {"PORT": str(free_port())}, tmp_path) as run:
        for line in run.stdout:
            if " lag=" in line:
                break
        run.send_signal(signal.SIGINT)
        closing = run.stdout.read().splitlines()[-1]
        assert run.wait(10) == 0
    assert closing.endswith("lost 0"), closing


def test_the_books_say_what_is_missing():
    books = Books(carried_over=1, stored=Counter({"clicks": 3, "bots": 2, "clicks.dead": 1, "orphans": 1}))
    books.close({"recorded": {"clicks": 10}, "dropped": {"journal_full": 1}, "unshipped": 1}, {}, queued=1)
    assert books.lost == 3
    assert books.sentence() == (
        "received 10 + 1 carried over = stored 4 + bots 2 + dead 1 + queued 2; lost 3"
    )
