"""Topics full of made-up events for the consumers' tests, and a count of what must come of them, made another way."""

import contextlib
import json
import sqlite3
import time
from collections import Counter
from pathlib import Path

import asyncpg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from processes import has_said, running
from published import published

DATA = Path(__file__).parent / "data"
EXAMPLES = {
    example["name"]: example["value"]
    for example in map(json.loads, (DATA / "events.jsonl").read_text("utf-8").splitlines())
    if "value" in example
}
TOPICS = ("clicks", "referrals", "bots")
PARTITIONS = 3
DAYS = ("2026-01-30", "2026-01-31", "2026-02-01")


def event(number, rng, **fields):
    """Give a click, now and then a bot's or a referral, as (topic, value)."""
    kind = rng.choices(("click", "bot", "referral"), (8, 1, 1))[0]
    class_ = rng.choice(("search", "preview")) if kind == "bot" else None
    bot = {"bot_class": class_, "bot_name": "Googlebot"} if class_ else {}
    value = {
        **EXAMPLES["referral" if kind == "referral" else "click"],
        "event_id": f"00000000-0000-7000-8000-{number:012x}",
        "clicked_at": f"{rng.choice(DAYS)}T{rng.randrange(24):02}:00:00.000Z",
        "visitor_id": rng.choice((f"{rng.randrange(300):064x}", f"{rng.randrange(2**60):064x}", None)),
        "country": rng.choice(("DE", "FR", None)),
        "platform": rng.choice(("ios", "android", None)),
        **bot,
    }
    if kind == "referral":
        value |= {"domain": rng.choice(("news.example.org", "example.com"))}
    else:
        value |= {
            "link_id": rng.choice((1, 2, 3, 46)),
            "user_id": rng.choice((7, 9, None)),
            "referer": rng.choice(("news.example.org", "https://example.com/a?b", None)),
        }
    topic = {"click": "clicks", "bot": "bots", "referral": "referrals"}[kind]
    return topic, value | fields


def expected(values):
    """Count values the slow way: what the tables must say."""
    clicks = [value for value in values if value["event_type"] == "click"]
    people = [value for value in clicks if value["bot_class"] is None]

    def link_day(value):
        return value["link_id"], value["clicked_at"][:10]

    by = Counter()
    for value in people:
        referrer = (value["referer"] or "").removeprefix("https://").partition("/")[0]
        for what, name in (
            ("country", value["country"]),
            ("platform", value["platform"]),
            ("referrer", referrer),
        ):
            by[(*link_day(value), what, name or "")] += 1
    visitors = {(*link_day(value), value["visitor_id"]) for value in people if value["visitor_id"]}
    days = {
        key: (
            sum(link_day(value) == key for value in people),
            sum(visitor[:2] == key for visitor in visitors),
            sum(link_day(value) == key for value in clicks) - sum(link_day(value) == key for value in people),
            sum(link_day(value) == key and value["bot_class"] == "preview" for value in clicks),
        )
        for key in set(map(link_day, clicks))
    }
    return {
        "links": dict(Counter(value["link_id"] for value in people)),
        "users": dict(Counter(value["user_id"] for value in people if value["user_id"] is not None)),
        "days": days,
        "by": dict(by),
        "referrals": {
            value["event_id"]: (value["domain"], value["bot_class"] is not None)
            for value in values
            if value["event_type"] == "referral"
        },
    }


async def query(database_url, sql, *arguments):
    """Ask the database as anybody would; gives tuples. `$1` is the first argument."""
    if database_url.startswith("sqlite"):
        path = database_url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            return connection.execute(sql.replace("$", "?"), arguments).fetchall()
    connection = await asyncpg.connect(database_url)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def found(database_url):
    """Read what the tables say, in the shape of `expected`."""

    async def ask(sql):
        return await query(database_url, sql)

    referrals = "SELECT event_id, domain, suspected_bot FROM events.referrals"
    if database_url.startswith("sqlite"):
        referrals = referrals.replace("events.", "events_")
    return {
        "links": dict(await ask("SELECT id, total_clicks FROM links WHERE total_clicks > 0")),
        "users": dict(await ask("SELECT id, total_clicks FROM users")),
        "days": {
            (link, str(day)): tuple(counts)
            for link, day, *counts in await ask(
                "SELECT link_id, day, clicks, people, bots, previews FROM totals_link_days"
            )
        },
        "by": {
            (link, str(day), what, value): clicks
            for link, day, what, value, clicks in await ask(
                "SELECT link_id, day, what, value, clicks FROM totals_link_days_by"
            )
        },
        "referrals": {str(event_id): (domain, bool(bot)) for event_id, domain, bot in await ask(referrals)},
    }


def made_up(event):
    """Give an event's JSON; what a test makes up is what the schema of its type allows, or is given as bytes."""
    raw = json.dumps(event).encode()
    published(raw)
    return raw


class Topics:
    """The topics of one test, and all that was put there."""

    def __init__(self, bootstrap, prefix, topics=TOPICS, *, transactional="test"):
        self.prefix = prefix
        self.values = []
        self._bootstrap = bootstrap
        self._sent = 0
        admin = AdminClient({"bootstrap.servers": bootstrap})
        wanted = [NewTopic(prefix + topic, PARTITIONS, 1) for topic in topics]
        for future in admin.create_topics(wanted).values():
            future.result(10)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": prefix + transactional,
                "linger.ms": 5,
            }
        )
        self._producer.init_transactions(20)

    def put(self, events):
        """Put events there, all in one transaction."""
        self._producer.begin_transaction()
        for topic, value in events:
            raw = value if isinstance(value, bytes | None) else made_up(value)
            self._producer.produce(self.prefix + topic, raw, partition=self._sent % PARTITIONS)
            self._producer.poll(0)
            self._sent += 1
            if isinstance(value, dict):
                self.values.append(value)
        self._producer.commit_transaction(20)

    def put_and_abort(self, events):
        """Put events there, and take them back."""
        self._producer.begin_transaction()
        for topic, value in events:
            self._producer.produce(self.prefix + topic, made_up(value))
        self._producer.flush(20)
        self._producer.abort_transaction(20)


@contextlib.contextmanager
def consumer(directory, name, *options, said="consumer_started", **environ):
    """Run a consumer until the block ends."""
    command = ("python", "-m", "consumers.cli", "run", name, *options)
    with running(directory, *command, answers=has_said(said), **environ) as child:
        yield child


def run_to_end(directory, name, *options, seconds=60, **environ):
    """Run a consumer until it has read everything; gives its exit code and what it said."""
    with consumer(directory, name, "--until-end", *options, **environ) as child:
        deadline = time.monotonic() + seconds
        while child.pid:
            assert time.monotonic() < deadline, child.program.log.read_text("utf-8")
            time.sleep(0.05)
        return child._process.returncode, child.program.log.read_text("utf-8")


def statements_of_the_docs(language, heading):
    """Give the SQL that docs/consumers.md shows in blocks of a language, below a heading."""
    text = (DATA.parent.parent / "docs" / "consumers.md").read_text("utf-8").partition(heading)[2]
    blocks = [block.partition("```")[0] for block in text.split(f"```{language}\n")[1:]]
    return [statement for block in blocks for statement in block.split(";\n") if statement.strip()]
