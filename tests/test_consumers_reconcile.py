"""reconcile finds what a side lacks, and replay puts exactly that back into Kafka."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from archive_world import Records, files_of, in_archive, whole
from confluent_kafka import TopicPartition as Until
from confluent_kafka.admin import AdminClient
from consumers_world import EXAMPLES, PARTITIONS, query, run_to_end, statements_of_the_docs
from processes import running
from test_consumers_clickhouse import Server

from consumers.archive_cli import _range
from consumers.identity import Kind, seen
from consumers.settings import ConsumersSettings

RANGE = ("--from", "2026-01-30", "--to", "2026-02-02")


@pytest.fixture
def topics(apache_kafka, topic_prefix):
    return Records(apache_kafka.bootstrap, topic_prefix)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def environ(apache_kafka, topic_prefix, root, tmp_path):
    return {
        "KAFKA_URL": apache_kafka.url,
        "KAFKA_PREFIX": topic_prefix,
        "ARCHIVE_URL": str(root),
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "CLICKHOUSE_URL": "",
    }


def consumers(environ, *command, expect=0):
    """Run a command of consumers'; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "consumers.cli", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environ},
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def differences(environ, *options, expect=1):
    """Give the ids that sides lack, and the counts."""
    *found, last = map(
        json.loads, consumers(environ, "reconcile", *RANGE, "--json", *options, expect=expect).splitlines()
    )
    lacks = {side: {one["event_id"] for one in found if side in one["lacks"]} for side in last["sides"]}
    return lacks, {side: counts["events"] for side, counts in last["sides"].items()}


def clicks_of_people(events):
    return [value for topic, value in events if topic == "clicks"]


def of_type(events, event_type):
    return {value["event_id"] for _, value in events if value["event_type"] == event_type}


async def test_reconcile_says_who_lacks_which_events(topics, environ, root, tmp_path, rng):
    server = Server(tmp_path / "clickhouse")
    server.start()
    try:
        environ["CLICKHOUSE_URL"] = server.url
        events = topics.put_events(range(598), rng)
        installs = [
            EXAMPLES["in-app"] | {"event_id": f"00000000-0000-7000-9000-{number:012}"} for number in range(2)
        ]
        topics.put_records(whole("inapp", install) for install in installs)
        for name in ("archive", "totals", "clickhouse"):
            code, said = run_to_end(tmp_path / name, name, **environ)
            assert code == 0, said
        clicks, referrals = of_type(events, "click"), of_type(events, "referral")
        lacks, counts = differences(environ, expect=0)
        assert lacks == {"kafka": set(), "archive": set(), "clickhouse": set(), "sql": set()}
        assert counts == {"kafka": 600, "archive": 600, "clickhouse": len(clicks), "sql": len(referrals)}

        for statement in statements_of_the_docs("sql archive", "## Cookbook"):
            rows = server.ask(statement.replace("archive/inapp", f"{root}/{topics.prefix}inapp"))
            assert rows == [["7games", len(clicks_of_people(events)), 2, rows[0][3]]]

        file = rng.choice(files_of(root))
        gone = in_archive(root)
        file.unlink()
        gone = {json.loads(record[5])["event_id"] for record in gone - in_archive(root)}
        click, referral = rng.choice(sorted(clicks)), rng.choice(sorted(referrals))
        server.order(f"DELETE FROM link_clicks WHERE event_id = '{click}'")  # noqa: S608
        await query(environ["DATABASE_URL"], "DELETE FROM events_referrals WHERE event_id = $1", referral)
        lacks, _ = differences(environ)
        assert lacks == {"kafka": set(), "archive": gone, "clickhouse": {click}, "sql": {referral}}
        table = consumers(environ, "reconcile", *RANGE, "--side", "kafka", "--side", "sql", expect=1)
        assert "ClickHouse" not in table
        assert f"{referral} " in table
    finally:
        server.kill()


def lose(topics, rng):
    """Remove the older part of some partitions from Kafka, as retention does; gives the ids."""
    admin = AdminClient({"bootstrap.servers": topics.bootstrap})
    before = topics.in_kafka()
    untils = [
        Until(topics.prefix + topic, partition, rng.randrange(10, 40))
        for topic in ("clicks", "referrals")
        for partition in rng.sample(range(PARTITIONS), 2)
    ]
    for future in admin.delete_records(untils).values():
        future.result(10)
    return {json.loads(record[5])["event_id"] for record in before - topics.in_kafka()}


async def test_replay_puts_back_exactly_what_kafka_lacks_as_it_was(topics, environ, tmp_path, rng):
    topics.put_events(range(1_500), rng)
    topics.put_records(
        [("clicks.dead", None, b"\xff line", [("reason", b"x \xff")], 1_769_860_800_000) for _ in range(2)]
    )
    whole = topics.without_places()
    run_to_end(tmp_path, "archive", **environ)
    lost = lose(topics, rng)
    assert consumers(environ, "replay", *RANGE, "--dry-run").startswith(
        f"{len(lost)} events would be put back"
    )
    assert topics.without_places() < whole
    assert "clicks" not in consumers(environ, "replay", *RANGE, "--topic", "referrals")
    assert "referrals" not in consumers(environ, "replay", *RANGE)
    assert topics.without_places() == whole
    assert consumers(environ, "replay", *RANGE).startswith("0 events put back")
    assert topics.without_places() == whole
    noon = ("--from", "2026-01-30T12:00:00Z", "--to", "2026-01-30T14:00:00+01:00")
    consumers(environ, "replay", *noon, "--all")
    assert {record[2] for record in topics.without_places() - whole} == {1_769_774_400_000}


async def test_a_replay_that_was_killed_is_repeated_without_a_double(
    topics, environ, apache_kafka, tmp_path, rng
):
    topics.put_events(range(9_000), rng)
    whole = topics.without_places()
    run_to_end(tmp_path, "archive", **environ)
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap})
    ends = [Until(topics.prefix + topic, part, -1) for topic in topics.topics for part in range(PARTITIONS)]
    for future in admin.delete_records(ends).values():
        future.result(10)
    assert not topics.in_kafka()
    command = ("python", "-m", "consumers.cli", "replay", *RANGE)
    with running(
        tmp_path / "killed", *command, answers=lambda _child: bool(topics.in_kafka()), **environ
    ) as child:
        await asyncio.sleep(rng.uniform(0, 0.3))
        child.kill()
    print(f"put back before the kill: {topics.in_kafka().total()}")
    consumers(environ, "replay", *RANGE)
    assert topics.without_places() == whole


def test_an_event_is_known_by_its_value_else_its_header_else_all_of_it():
    def record(value, headers=(), topic="p.clicks"):
        return SimpleNamespace(topic=topic, timestamp=1, key=None, value=value, headers=headers)

    click = b'{"event_id": "ABC", "schema": "click/1"}'
    assert seen(record(click, [("ce_id", b"other")]), "p.").event_id == "abc"
    assert seen(record(click), "p.").kind is Kind.CLICK
    assert seen(record(click, topic="p.inapp"), "p.").kind is Kind.OTHER
    assert seen(record(b"/t/click a b", [("ce_id", b"ABC")]), "p.").event_id == "abc"
    letters = {seen(record(value), "p.").event_id for value in (b"x", b"x", b"y", None)}
    assert len(letters) == 3


def test_wrong_use_is_said(environ, capsys):
    consumers(environ, "replay", "--from", "2026-01-30", "--topic", "nonsense", expect=2)
    day = datetime(2026, 1, 30, tzinfo=UTC)
    with pytest.raises(SystemExit):
        _range(day, day, ConsumersSettings())
    assert "no time between" in capsys.readouterr().err
