"""`kafkastore tail`: which records it shows, and how."""

import asyncio
import json
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from processes import running

from embedded.kafka import running_kafka
from kafkastore.settings import KafkastoreSettings
from kafkastore.stored import Stored, Wanted, as_json, readable
from kafkastore.tail import tail
from kafkastore.topics import ensure_topics
from process.settings import read_settings

EXAMPLES = {
    example["name"]: example["value"]
    for example in map(
        json.loads, (Path(__file__).parent / "data" / "events.jsonl").read_text("utf-8").splitlines()
    )
}
AT_MS = 1769860800123


def stored(name="click", **fields):
    value = EXAMPLES[name] | fields
    return Stored(f"{name}s", AT_MS, value, json.dumps(value).encode(), {})


DEAD = Stored("clicks.dead", AT_MS, None, b"x y\xff", {"reason": b"fewer than five fields"})
BOT = stored(bot_class="search", bot_name="Googlebot", country="US")


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Wanted(), ["click", "bot", "referral", "orphan", "dead"]),
        (Wanted(links=frozenset({"46"})), ["click", "bot"]),
        (Wanted(links=frozenset({"winter", "2"})), ["click", "bot"]),
        (Wanted(links=frozenset({"None"})), []),
        (Wanted(platforms=frozenset({"android"})), []),
        (Wanted(platforms=frozenset({"android", "ios"})), ["click", "bot", "referral", "orphan"]),
        (Wanted(countries=frozenset({"US"})), ["bot"]),
        (Wanted(bots=True), ["bot"]),
        (Wanted(bots=False), ["click", "referral", "orphan"]),
        (Wanted(bots=False, countries=frozenset({"US"})), []),
    ],
)
def test_only_what_fits_every_wish_is_shown(wanted, shown):
    records = {
        "click": stored(),
        "bot": BOT,
        "referral": stored("referral"),
        "orphan": stored("orphan"),
        "dead": DEAD,
    }
    assert [name for name, record in records.items() if wanted.fits(record)] == shown


def test_a_record_is_one_line_for_people_or_for_programs():
    assert readable(stored()) == "12:00:00 clicks link=46 winter ios DE lag=0.0s"
    assert readable(BOT) == "12:00:00 clicks link=46 winter ios US bot=Googlebot lag=0.0s"
    assert readable(stored("referral")) == (
        "12:00:00 referrals domain=news.example.org /recipes ios DE lag=0.0s"
    )
    assert readable(DEAD) == "12:00:00 clicks.dead fewer than five fields: b'x y\\xff'"
    assert json.loads(as_json(stored())) == EXAMPLES["click"]
    assert json.loads(as_json(DEAD)) == {
        "topic": "clicks.dead",
        "reason": "fewer than five fields",
        "line": "x y\ufffd",
    }


def test_the_command_follows_a_topic_and_shows_what_was_asked_for(apache_kafka, topic_prefix, tmp_path):
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap})
    topic = f"{topic_prefix}clicks"
    admin.create_topics([NewTopic(topic, 2)])[topic].result(timeout=30)
    producer = Producer({"bootstrap.servers": apache_kafka.bootstrap})
    for record in (BOT, stored(country="FR"), stored(country="DE", slug="last")):
        producer.produce(topic, record.raw, partition=0)
    producer.flush(30)
    environ = {"KAFKA_URL": apache_kafka.url, "KAFKA_PREFIX": topic_prefix}
    wishes = ("--people", "--link", "46", "--country", "de", "--platform", "iOS", "--json")
    command = ("kafkastore", "tail", "clicks", "--from-beginning", *wishes)

    def shown(child):
        return '"last"' in child.program.log.read_text("utf-8")

    with running(tmp_path, *command, answers=shown, **environ) as child:
        lines = child.program.log.read_text("utf-8").splitlines()
    told = [json.loads(line) for line in lines if '"click/1"' in line]
    assert [value["slug"] for value in told] == ["last"]


@pytest.mark.parametrize("seconds", [0.2, 1, 3])
async def test_it_ends_when_told_to_though_kafka_is_gone(tmp_path, seconds):
    with running_kafka(tmp_path) as server:
        settings = read_settings(KafkastoreSettings, {"KAFKA_URL": server.url, "DELIVERY": "at_least_once"})
        await ensure_topics(settings)
        stop = asyncio.Event()
        following = asyncio.create_task(anext(tail(settings, None, stop, from_beginning=True), None))
        await asyncio.sleep(seconds)  # it looks for its place, or has found it
        server.brokers[0].kill()
        stop.set()
        await asyncio.wait({following}, timeout=10)
        assert following.done()
        assert following.exception() is None
        assert following.result() is None
