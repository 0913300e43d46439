"""The archive: everything Kafka has, once, to the byte, whatever is killed, repeated, reassigned or away."""

import asyncio
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from archive_world import TOPICS, Records, in_archive, whole
from consumers_world import consumer, event, run_to_end
from pydantic import SecretStr

from consumers.archive import Archive
from consumers.archive_file import archived_of, line_of
from consumers.sink import Batch, MovedError, Span

KILLS = int(os.environ.get("KILLS", "4"))
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


async def until(condition, child, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, child.program.log.read_text("utf-8")
        await asyncio.sleep(0.05)


async def until_exact(root, topics, child):
    await until(lambda: in_archive(root) == topics.in_kafka(), child)


def files(root):
    return sorted(root.glob("[!_]*/*/*/*.jsonl.gz"))


async def test_every_record_is_archived_once_and_a_second_run_changes_nothing(
    topics, environ, root, tmp_path, rng
):
    topics.put_events(range(2_000), rng)
    topics.put_and_abort(event(number, rng) for number in range(2_000, 2_100))
    for run in range(2):
        code, said = run_to_end(tmp_path / str(run), "archive", **environ)
        assert code == 0, said
        assert in_archive(root) == topics.in_kafka()
    before = files(root)
    topics.put_events(range(2_100, 2_200), rng)
    run_to_end(tmp_path / "last", "archive", **environ)
    assert in_archive(root) == topics.in_kafka()
    assert set(before) < set(files(root))


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
    topics.put_records((topic, key, value, headers, 1_769_860_800_123) for topic, key, value, headers in POISON)
    topics.put_events(range(100), rng)
    code, said = run_to_end(tmp_path, "archive", **environ)
    assert code == 0, said
    assert in_archive(root) == topics.in_kafka()


@pytest.mark.parametrize(("topic", "key", "value", "headers"), POISON)
def test_a_line_restores_its_record(topic, key, value, headers):
    record = SimpleNamespace(
        topic=topic, partition=3, offset=2**40, timestamp=-1, key=key, value=value, headers=tuple(headers or ())
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
            before = len(files(root))
            with consumer(tmp_path, "archive", **environ) as child:
                await until(lambda before=before: len(files(root)) > before, child)
                await asyncio.sleep(rng.uniform(0, 0.3))
                child.kill()
    finally:
        enough.set()
        putting.join()
    code, said = run_to_end(tmp_path / "last", "archive", **environ)
    assert code == 0, said
    print(f"kills={KILLS} records={topics.in_kafka().total()}")
    assert in_archive(root) == topics.in_kafka()
