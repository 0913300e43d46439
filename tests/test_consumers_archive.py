"""The archive: everything Kafka has, once, to the byte, whatever is killed, repeated, reassigned or away."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from archive_world import Records, files_of, in_archive
from consumers_world import consumer, event, run_to_end
from test_consumers_totals import FLAT_BYTES, readyz, resident_bytes

from consumers.archive_file import archived_of, line_of
from consumers.settings import ConsumersSettings
from embedded.ports import free_port
from process.settings import SettingsError, read_settings

KILLS = int(os.environ.get("KILLS", "2"))
CLICKS = TopicPartition("clicks", 0)


@pytest.fixture
def topics(apache_kafka, topic_prefix):
    return Records(apache_kafka.bootstrap, topic_prefix)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def environ(apache_kafka, topic_prefix, root):
    return {
        "KAFKA_URL": apache_kafka.url,
        "KAFKA_PREFIX": topic_prefix,
        "ARCHIVE_URL": root,
        "ARCHIVE_SECONDS": 1,
    }


async def until(condition, child, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, child.program.log.read_text("utf-8")
        await asyncio.sleep(0.05)


async def until_exact(root, topics, child):
    """Wait until the archive has what Kafka has now."""
    wanted = topics.in_kafka()
    await until(lambda: in_archive(root) == wanted, child)


async def test_every_record_is_archived_once_and_a_second_run_adds_what_is_new(
    topics, environ, root, tmp_path, rng
):
    topics.put_events(range(2_000), rng)
    topics.put_and_abort(event(number, rng) for number in range(2_000, 2_100))
    code, said = run_to_end(tmp_path / "first", "archive", **environ)
    assert code == 0, said
    assert in_archive(root) == topics.in_kafka()
    before = files_of(root)
    topics.put_events(range(2_100, 2_200), rng)
    run_to_end(tmp_path / "second", "archive", **environ)
    assert in_archive(root) == topics.in_kafka()
    assert set(before) < set(files_of(root))


POISON = (
    ("clicks", None, None, None),
    ("clicks", b"\xff\x00", b"\xfe", [("x", b"\xff"), ("x", None), ("", b"")]),
    ("inapp", "schlüssel".encode(), b"/t/ist meta params", [("content-type", b"text/plain")]),
    ("bots", b"", b"", []),
    ("clicks", b"k", b"null", []),
    ("clicks", b"k", b'"text"', []),
    ("clicks", b"k", b'{"a": 1}\n', []),
    ("clicks", b"k", b'{"a": 1,\n"b": 2}', []),
    ("clicks", b"k", b'{"a": "\xff"}', []),
    ("clicks", b"k", b'{"a": }', []),
    ("clicks", b"k", b'{"a": 1} {"b": 2}', []),
    ("clicks", b"k", '{"a": "\u2028 \U0001f4a9 \\ud800", "a": 1e999}'.encode(), []),
    ("clicks.dead", None, b"203.0.113.42 x clicks /t/click \x00\xff\r\n", [("reason", b"no \xff time")]),
)


async def test_whatever_a_record_holds_is_archived_to_the_byte(topics, environ, root, tmp_path, rng):
    topics.put_records(
        (topic, key, value, headers, 1_769_860_800_123) for topic, key, value, headers in POISON
    )
    topics.put_events(range(100), rng)
    code, said = run_to_end(tmp_path, "archive", **environ)
    assert code == 0, said
    assert in_archive(root) == topics.in_kafka()


@pytest.mark.parametrize(("topic", "key", "value", "headers"), POISON)
def test_a_line_restores_its_record(topic, key, value, headers):
    record = SimpleNamespace(
        topic=topic,
        partition=3,
        offset=2**40,
        timestamp=-1,
        key=key,
        value=value,
        headers=tuple(headers or ()),
    )
    line = line_of(record)
    assert line.count(b"\n") == 1
    read = archived_of(line)
    assert {name: getattr(read, name) for name in vars(record)} == vars(record)


async def test_killed_at_random_points_under_load_the_archive_is_exact(topics, environ, root, tmp_path, rng):
    enough = threading.Event()

    def put_for_ever():
        number = 0
        while not enough.wait(0.05):
            topics.put_events(range(number, number + 200), rng)
            number += 200

    putting = threading.Thread(target=put_for_ever)
    putting.start()
    try:
        for _ in range(KILLS):
            before = len(files_of(root))
            with consumer(tmp_path, "archive", **environ) as child:
                await until(lambda before=before: len(files_of(root)) > before, child)
                await asyncio.sleep(rng.uniform(0, 0.3))
                child.kill()
    finally:
        enough.set()
        putting.join()
    code, said = run_to_end(tmp_path / "last", "archive", **environ)
    assert code == 0, said
    print(f"kills={KILLS} records={topics.in_kafka().total()}")
    assert in_archive(root) == topics.in_kafka()


async def test_members_that_join_leave_or_stand_still_in_mid_batch_change_nothing(
    topics, environ, root, tmp_path, rng
):
    topics.put_events(range(500), rng)
    with consumer(tmp_path / "first", "archive", **environ) as first:
        await until(lambda: files_of(root), first)
        topics.put_events(range(500, 1_000), rng)
        with consumer(tmp_path / "second", "archive", **environ) as second:
            topics.put_events(range(1_000, 1_500), rng)
            await until_exact(root, topics, second)
            os.kill(first.pid, signal.SIGSTOP)
            topics.put_events(range(1_500, 2_000), rng)
            await until_exact(root, topics, second)  # which has all partitions now
            os.kill(first.pid, signal.SIGCONT)
            topics.put_events(range(2_000, 2_500), rng)
            await until_exact(root, topics, second)
        topics.put_events(range(2_500, 3_000), rng)
        await until_exact(root, topics, first)


async def test_while_the_store_is_away_it_pauses_with_flat_memory_and_then_catches_up(
    topics, environ, root, tmp_path, rng
):
    metrics = free_port()
    with consumer(tmp_path, "archive", METRICS_PORT=metrics, HOST="127.0.0.1", **environ) as child:
        topics.put_events(range(100), rng)
        await until_exact(root, topics, child)
        away = root.rename(tmp_path / "away")
        root.write_text("no folder")
        topics.put_events(range(100, 200), rng)
        await until(lambda: readyz(metrics) == (503, "the sink is away"), child)
        before = resident_bytes(child.pid)
        for begin in range(200, 5_200, 1_000):
            topics.put_events(range(begin, begin + 1_000), rng, padding="x" * 10_000)
        assert readyz(metrics) == (503, "the sink is away")
        assert resident_bytes(child.pid) - before < FLAT_BYTES
        root.unlink()
        away.rename(root)
        await until_exact(root, topics, child)
        assert readyz(metrics)[0] == 200


async def test_sigterm_is_obeyed_while_the_store_is_away(topics, environ, root, tmp_path, rng):
    root.mkdir()
    with consumer(tmp_path, "archive", **environ) as child:
        root.rmdir()
        root.write_text("no folder")
        topics.put_events(range(10), rng)
        await until(lambda: '"consumer_waits"' in child.program.log.read_text("utf-8"), child)
    assert child._process.returncode == 0


def test_a_folder_that_is_none_is_said_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    asked = subprocess.run(
        [sys.executable, "-m", "consumers.cli", "run", "archive"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ARCHIVE_URL": f"{tmp_path}/file"},
    )
    assert asked.returncode == 1, asked.stderr
    assert asked.stderr.startswith("the archive's folder cannot be used")


@pytest.mark.parametrize("url", ["ftp://host/archive", "s3://", "/"])
def test_a_place_that_is_none_is_refused(url):
    with pytest.raises(SettingsError, match="ARCHIVE_URL"):
        read_settings(ConsumersSettings, {"ARCHIVE_URL": url})
