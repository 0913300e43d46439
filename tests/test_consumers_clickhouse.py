"""Clicks in ClickHouse: effectively once, judged by ClickHouse's own engine."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from aiokafka import TopicPartition
from consumers_world import DATA, EXAMPLES, Topics, consumer, event, run_to_end, statements_of_the_docs
from pydantic import SecretStr
from test_consumers_counts import dead_value

from consumers.clickhouse import ClickHouse
from consumers.clickhouse_rows import inserts_of
from consumers.sink import Batch, RefusedError, SinkAwayError, Span
from embedded.ports import free_port
from embedded.server import Child, Program

KILLS = int(os.environ.get("KILLS", "2"))
CLICKS = TopicPartition("clicks", 0)


class Server:
    """A ClickHouse that can be killed and started again on its data, and a database in it."""

    def __init__(self, directory):
        self.port = free_port()
        self.database = "default"
        front = Path(__file__).with_name("clickhouse_front.py")
        self._child = Child(
            Program(
                name="clickhouse",
                directory=directory,
                argv=(sys.executable, str(front), str(self.port), str(directory / "data")),
                ports=(self.port,),
                answers=self._answers,
            )
        )
        self.start, self.kill = self._child.start, self._child.kill

    @property
    def url(self):
        return f"http://analyst:p%40ss%2Fword@127.0.0.1:{self.port}/{self.database}"

    def _answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=1):
                return True
        except OSError:
            return False

    def order(self, sql):
        """Send a statement; gives what comes back."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/?database={self.database}",
            sql.encode(),
            {"X-ClickHouse-User": "analyst", "X-ClickHouse-Key": "p@ss/word"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def ask(self, sql):
        """Give the rows of an answer."""
        answer = self.order(f"{sql} FORMAT JSONCompactEachRow").decode("utf-8", "replace")
        return [json.loads(line) for line in answer.splitlines()]


@pytest.fixture(scope="module")
def running_clickhouse(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def clickhouse(running_clickhouse):
    """Give a server with an empty database."""
    running_clickhouse.database = "default"
    name = f"test_{time.time_ns()}"
    running_clickhouse.order(f"CREATE DATABASE {name}")
    running_clickhouse.database = name
    return running_clickhouse


@pytest.fixture
async def sink(clickhouse):
    sink = ClickHouse(SecretStr(clickhouse.url))
    try:
        await sink.positions("cluster", {CLICKS: 0})
        yield sink
    finally:
        await sink.close()


@pytest.fixture
def topics(apache_kafka, topic_prefix):
    return Topics(apache_kafka.bootstrap, topic_prefix)


@pytest.fixture
def environ(apache_kafka, topic_prefix, clickhouse):
    return {"KAFKA_URL": apache_kafka.url, "KAFKA_PREFIX": topic_prefix, "CLICKHOUSE_URL": clickhouse.url}


def span_of(values, begin=0):
    records = [
        SimpleNamespace(
            topic="clicks",
            partition=0,
            offset=begin + number,
            value=value if isinstance(value, bytes | None) else json.dumps(value).encode(),
        )
        for number, value in enumerate(values)
    ]
    return Span(CLICKS, begin, begin + len(values), records)


def batch_of(values, begin=0):
    return Batch("cluster", [span_of(values, begin)])


def click(number=1, **fields):
    return EXAMPLES["click"] | {"event_id": f"00000000-0000-7000-8000-{number:012x}"} | fields


def events(numbers, rng, **fields):
    return [event(number, rng, **fields) for number in numbers]


def clicks_of(topics):
    return [value for value in topics.values if value["event_type"] == "click"]


def exact(server, topics):
    """Tell whether ClickHouse has each click once, for whoever counts as the docs say."""
    clicks = clicks_of(topics)
    people = {value["visitor_id"] for value in clicks if value["visitor_id"]}
    counts = server.ask("SELECT uniqExact(event_id), uniqExact(visitor_id) FROM link_clicks")[0]
    counts += server.ask("SELECT count() FROM link_clicks FINAL")[0]
    return [int(count) for count in counts] == [len(clicks), len(people), len(clicks)]


async def until(condition, what, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        await asyncio.sleep(0.1)


async def test_a_click_is_a_row_with_the_types_of_its_columns(sink, clickhouse):
    await sink.write(batch_of([EXAMPLES["click"]]))
    wanted = {
        "event_id": "019c13ec-9e7b-7a01-8000-000000000001",
        "link_id": 46,
        "user_id": 9,
        "clicked_at": "2026-01-31 12:00:00.123",
        "visitor_id": EXAMPLES["click"]["visitor_id"],
        "country": "DE",
        "bot_class": None,
        "utm_source": "newsletter",
        "kafka_cluster": "cluster",
        "kafka_topic": "clicks",
        "kafka_partition": 0,
        "kafka_offset": 0,
    }
    columns = ", ".join(wanted)
    (row,) = clickhouse.ask(f"SELECT {columns}, toTypeName(clicked_at) FROM link_clicks")  # noqa: S608 - ours
    numbers = {"link_id", "user_id", "kafka_offset"}  # 64 bits may be quoted in JSON
    found = {
        name: int(value) if name in numbers else value for name, value in zip(wanted, row[:-1], strict=True)
    }
    assert found == wanted
    assert row[-1] == "DateTime64(3, 'UTC')"


async def test_a_click_that_names_no_link_is_no_click_of_link_0(sink, clickhouse):
    await sink.write(batch_of([click(link_id=None)]))
    assert int(clickhouse.ask("SELECT link_id FROM link_clicks")[0][0]) == -1


async def test_a_column_that_somebody_adds_is_filled(sink, clickhouse):
    clickhouse.order("ALTER TABLE link_clicks ADD COLUMN adid Nullable(String)")
    await sink.write(batch_of([click(adid="A-1")]))
    assert clickhouse.ask("SELECT adid FROM link_clicks") == [["A-1"]]


async def test_an_insert_that_is_repeated_is_dropped_and_one_that_overlaps_is_merged(sink, clickhouse):
    values = [click(number) for number in range(6)]
    for _ in range(2):
        await sink.write(batch_of(values))
    assert clickhouse.ask("SELECT toInt32(count()) FROM link_clicks") == [[6]]
    await sink.write(batch_of(values[3:], 3))
    assert clickhouse.ask("SELECT toInt32(uniqExact(event_id)) FROM link_clicks") == [[6]]
    assert clickhouse.ask("SELECT toInt32(count()) FROM link_clicks FINAL") == [[6]]
    daily = "SELECT toInt32(uniqMerge(clicks)), toInt32(uniqMerge(people)) FROM link_clicks_daily"
    assert clickhouse.ask(daily) == [[6, 1]]


async def test_the_position_is_that_of_the_rows_even_if_nothing_else_was_written(sink, clickhouse):
    beginnings = {CLICKS: 0, TopicPartition("bots", 1): 5}
    assert await sink.positions("cluster", beginnings) == beginnings
    await sink.write(batch_of([click(number) for number in range(4)]))
    clickhouse.order("TRUNCATE TABLE link_clicks_positions")
    assert await sink.positions("cluster", beginnings) == {**beginnings, CLICKS: 4}
    assert await sink.positions("another", beginnings) == beginnings


async def test_what_holds_no_click_moves_the_position_too(sink):
    await sink.write(Batch("cluster", [Span(CLICKS, 0, 9, [])]))
    assert await sink.positions("cluster", {CLICKS: 0}) == {CLICKS: 9}


MONTHS = ("2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00.000Z", "2026-02-01T00:30:00.000+01:00")


def over_months(count):
    return [click(number, clicked_at=MONTHS[number % 3]) for number in range(count)]


async def test_the_sql_of_the_docs_works(sink, clickhouse):
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    await sink.write(batch_of([click(1, clicked_at=now), click(2, clicked_at=now, bot_class="search")]))
    for statement in statements_of_the_docs("sql clickhouse", "## Cookbook"):
        assert len(clickhouse.ask(statement)) == 1


def test_one_insert_is_one_month():
    inserts, dead = inserts_of("cluster", span_of(over_months(6), 10))
    offsets = [[json.loads(row)["kafka_offset"] for row in insert.rows] for insert in inserts]
    assert offsets == [[10, 12, 13, 15], [11, 14]]
    assert len({insert.token for insert in inserts}) == 2
    assert not dead


async def test_a_span_of_two_months_of_which_one_is_missing_is_read_again(sink, clickhouse):
    await sink.write(batch_of([click(number) for number in range(6)]))
    clickhouse.order("ALTER TABLE link_clicks ADD CONSTRAINT no_february CHECK toMonth(clicked_at) != 2")
    with pytest.raises(RefusedError):
        await sink.write(batch_of(over_months(12)[6:], 6))
    assert clickhouse.ask("SELECT toInt32(max(kafka_offset)) FROM link_clicks") == [[11]]
    assert (await sink.positions("cluster", {CLICKS: 0}))[CLICKS] == 6
    clickhouse.order("ALTER TABLE link_clicks DROP CONSTRAINT no_february")
    await sink.write(batch_of(over_months(12)[6:9], 6))
    clickhouse.order("OPTIMIZE TABLE link_clicks_positions FINAL")
    # Up to 12 there are rows, and some of them are still missing.
    assert (await sink.positions("cluster", {CLICKS: 0}))[CLICKS] == 9
    await sink.write(batch_of(over_months(12)[9:], 9))
    assert (await sink.positions("cluster", {CLICKS: 0}))[CLICKS] == 12
    assert clickhouse.ask("SELECT toInt32(count()) FROM link_clicks FINAL") == [[12]]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in yaml.safe_load((DATA / "consumers_dead.yml").read_text("utf-8"))
        if case.get("example") != "referral"
    ],
    ids=str,
)
async def test_a_value_that_is_no_event_is_a_dead_letter_or_refused_by_clickhouse_itself(
    sink, clickhouse, case
):
    value = dead_value(case)
    try:
        await sink.write(batch_of([value]))
    except RefusedError as refused:
        await sink.bury(batch_of([value]), str(refused))
    letters = clickhouse.ask("SELECT value, reason FROM link_clicks_dead FINAL")
    stored = clickhouse.ask("SELECT toInt32(count()) FROM link_clicks")
    tolerated = {"link_id", "visitor_id", "user_id", "country"} & {
        *case.get("change", {}),
        case.get("without"),
    }
    assert [[len(letters)], *stored] == [[0], [1]] or (len(letters) == 1 and stored == [[0]])
    assert tolerated or len(letters) == 1
    assert (await sink.positions("cluster", {CLICKS: 0}))[CLICKS] == 1


async def test_one_refused_row_is_isolated_and_its_neighbours_arrive(
    topics, environ, clickhouse, tmp_path, rng
):
    refused = json.dumps(click(9_999) | {"event_id": "no UUID"})
    topics.put([*events(range(300), rng), ("clicks", refused.encode()), *events(range(300, 600), rng)])
    code, said = run_to_end(tmp_path, "clickhouse", **environ)
    assert code == 0, said
    assert exact(clickhouse, topics)
    ((value, reason),) = clickhouse.ask("SELECT value, reason FROM link_clicks_dead")
    assert value == refused
    assert "CANNOT_PARSE_UUID" in reason


async def test_killed_at_random_points_every_click_counts_once(topics, environ, clickhouse, tmp_path, rng):
    enough = threading.Event()

    def put_for_ever():
        numbers = iter(range(10**9))
        while not enough.wait(0.05):
            topics.put(events([next(numbers) for _ in range(200)], rng))

    def rows():
        try:
            return int(clickhouse.ask("SELECT count() FROM link_clicks")[0][0])
        except urllib.error.HTTPError:
            return 0

    putting = threading.Thread(target=put_for_ever)
    putting.start()
    try:
        for _ in range(KILLS):
            before = rows()
            with consumer(tmp_path, "clickhouse", **environ) as child:
                await until(
                    lambda before=before: rows() > before,
                    lambda child=child: child.program.log.read_text("utf-8"),
                )
                await asyncio.sleep(rng.uniform(0, 0.5))
                child.kill()
    finally:
        enough.set()
        putting.join()
    code, said = run_to_end(tmp_path / "last", "clickhouse", **environ)
    assert code == 0, said
    print(f"kills={KILLS} clicks={len(clicks_of(topics))} physical rows={rows()}")
    assert exact(clickhouse, topics)


async def test_while_clickhouse_is_away_it_waits_and_then_catches_up(
    topics, environ, clickhouse, tmp_path, rng
):
    topics.put(events(range(200), rng))
    with consumer(tmp_path, "clickhouse", **environ) as child:

        def said():
            return child.program.log.read_text("utf-8")

        def arrived():
            with contextlib.suppress(urllib.error.HTTPError):
                return exact(clickhouse, topics)

        await until(arrived, said)
        clickhouse.kill()
        topics.put(events(range(200, 3_000), rng))
        await until(lambda: "consumer_waits" in said(), said)
        clickhouse.start()
        await until(arrived, said)


async def test_a_wrong_password_is_said_and_not_taken_for_a_row_that_is_wrong(clickhouse):
    sink = ClickHouse(SecretStr(clickhouse.url.replace("word", "")))
    with pytest.raises(SinkAwayError, match="403: Code: 516"):
        await sink.positions("cluster", {CLICKS: 0})
    await sink.close()


async def test_a_server_that_is_not_there_is_away():
    sink = ClickHouse(SecretStr("http://127.0.0.1:1"))
    with pytest.raises(SinkAwayError, match="gives no answer"):
        await sink.positions("cluster", {CLICKS: 0})
    await sink.close()


def test_without_a_url_it_says_which_variable_is_missing():
    command = [sys.executable, "-m", "consumers.cli", "run", "clickhouse"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (asked.returncode, "set CLICKHOUSE_URL" in asked.stderr) == (1, True)
