"""Totals in SQL: exact, whatever is killed, repeated, reassigned or away."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest
import yaml
from aiokafka import TopicPartition
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from confluent_kafka import TopicPartition as Until
from confluent_kafka.admin import AdminClient
from consumers_world import (
    DATA,
    EXAMPLES,
    PARTITIONS,
    Topics,
    consumer,
    event,
    expected,
    found,
    query,
    run_to_end,
    statements_of_the_docs,
)
from prometheus_client.parser import text_string_to_metric_families
from test_consumers_counts import dead_value

from consumers.migrate import CONSUMER_STEPS
from consumers.schema import METADATA, REFERRALS
from consumers.sink import Batch, MovedError, SinkAwayError, Span
from consumers.totals import Totals
from embedded.ports import free_port
from embedded.postgres import running_postgres
from links.link import link_of
from links.store import LinkStore

KILLS = int(os.environ.get("KILLS", "2"))
LINKS = (1, 2, 3, 46)
FLAT_BYTES = 60_000_000  # what may be fetched ahead, twice, and Python's own


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request, tmp_path):
    """Give a database of the test's own, with the links that are clicked."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/onward.db"
        await prepare(url)
        return url
    return await new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def postgres(postgres_url):
    return await new_database(postgres_url)


async def new_database(postgres_url):
    name = f"totals_{time.time_ns()}"
    await query(postgres_url, f"CREATE DATABASE {name}")
    url = postgres_url.rpartition("/")[0] + f"/{name}"
    await prepare(url)
    return url


async def prepare(url):
    """Make the tables, and the links that are clicked."""
    sink = Totals(url, visitor_days=35)
    await sink.positions("another cluster", {})
    await sink.close()
    store = LinkStore(url)
    await store.save([link_of({"id": number, "campaign": "x"}) for number in LINKS])
    await store.close()


@pytest.fixture
def topics(apache_kafka, topic_prefix):
    return Topics(apache_kafka.bootstrap, topic_prefix)


@pytest.fixture
def kafka(apache_kafka, topic_prefix):
    return {"KAFKA_URL": apache_kafka.url, "KAFKA_PREFIX": topic_prefix}


@pytest.fixture
async def sink(database_url):
    sink = Totals(database_url, visitor_days=35)
    await sink.positions("cluster", {CLICKS: 0})
    yield sink
    await sink.close()


CLICKS = TopicPartition("clicks", 0)


def batch_of(values, begin=0):
    records = [
        SimpleNamespace(topic="clicks", partition=0, offset=begin + number, value=json.dumps(value).encode())
        for number, value in enumerate(values)
    ]
    return Batch("cluster", [Span(CLICKS, begin, begin + len(values), records)])


def click(**fields):
    return EXAMPLES["click"] | fields


def events(numbers, rng, **fields):
    return [event(number, rng, **fields) for number in numbers]


async def until(condition, what, seconds=40):
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, what()
        await asyncio.sleep(0.05)


async def until_exact(database_url, topics, child):
    """Wait until the tables say what they must."""

    async def exact():
        return await found(database_url) == expected(topics.values)

    await until(exact, lambda: child.program.log.read_text("utf-8"))


async def test_every_event_is_counted_once_and_a_second_run_changes_nothing(
    topics, kafka, database_url, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": database_url}
    topics.put(events(range(3_000), rng))
    topics.put_and_abort(events(range(3_000, 3_100), rng))
    for run in range(2):
        code, said = run_to_end(tmp_path / str(run), "totals", **environ)
        assert code == 0, said
        assert await found(database_url) == expected(topics.values)
    topics.put(events(range(3_100, 3_200), rng))
    run_to_end(tmp_path / "last", "totals", **environ)
    assert await found(database_url) == expected(topics.values)


async def test_killed_at_random_points_under_load_the_totals_are_exact(
    topics, kafka, database_url, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": database_url}
    enough = threading.Event()

    def put_for_ever():
        numbers = iter(range(10**9))
        while not enough.wait(0.05):
            topics.put(events([next(numbers) for _ in range(200)], rng))

    async def clicks():
        return sum((await found(database_url))["links"].values())

    putting = threading.Thread(target=put_for_ever)
    putting.start()
    try:
        for _ in range(KILLS):
            before = await clicks()
            with consumer(tmp_path, "totals", **environ) as child:

                async def moves(before=before):
                    return await clicks() > before

                await until(moves, lambda child=child: child.program.log.read_text("utf-8"))
                await asyncio.sleep(rng.uniform(0, 0.5))
                child.kill()
    finally:
        enough.set()
        putting.join()
    code, said = run_to_end(tmp_path / "last", "totals", **environ)
    assert code == 0, said
    print(f"kills={KILLS} events={len(topics.values)}")
    assert await found(database_url) == expected(topics.values)


async def test_a_member_that_joins_or_leaves_in_mid_batch_changes_no_total(
    topics, kafka, postgres, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": postgres}
    with consumer(tmp_path / "first", "totals", **environ) as first:
        release = await hold_in_mid_batch(postgres)
        topics.put(events(range(2_000), rng))
        await until_waiting_for_a_lock(postgres, 1)
        with consumer(tmp_path / "second", "totals", **environ) as second:
            await until_waiting_for_a_lock(postgres, 2)
            await release()
            await until_exact(postgres, topics, second)
            topics.put(events(range(2_000, 12_000), rng))
        await until_exact(postgres, topics, first)


async def test_a_member_that_stands_still_in_mid_batch_holds_nobody_up_and_changes_no_total(
    topics, kafka, postgres, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": postgres}
    with consumer(tmp_path / "first", "totals", **environ) as first:
        release = await hold_in_mid_batch(postgres)
        topics.put(events(range(2_000), rng))
        await until_waiting_for_a_lock(postgres, 1)
        os.kill(first.pid, signal.SIGSTOP)
        with consumer(tmp_path / "second", "totals", **environ) as second:
            await release()
            await until_exact(postgres, topics, second)
            os.kill(first.pid, signal.SIGCONT)
            topics.put(events(range(2_000, 4_000), rng))
            await until_exact(postgres, topics, second)


async def hold_in_mid_batch(database_url):
    """Keep whoever counts in its commit, with its positions moved; gives what releases it."""
    lock = await asyncpg.connect(database_url)
    await lock.execute("BEGIN; SELECT * FROM links_revision FOR UPDATE")
    return lock.close


async def until_waiting_for_a_lock(database_url, processes):
    async def enough():
        activity = await query(
            database_url, "SELECT wait_event_type FROM pg_stat_activity WHERE datname = current_database()"
        )
        return activity.count(("Lock",)) >= processes

    await until(enough, lambda: "nobody waits for the lock")


async def test_while_the_database_is_away_it_pauses_with_flat_memory_and_then_catches_up(
    topics, kafka, open_directory, tmp_path, rng
):
    directory, port, metrics = open_directory / f"away-{time.time_ns()}", free_port(), free_port()
    with running_postgres(directory, port=port) as url:
        database_url = await new_database(url)
        environ = {**kafka, "DATABASE_URL": database_url, "METRICS_PORT": metrics, "HOST": "127.0.0.1"}
    with consumer(tmp_path, "totals", said="consumer_waits", **environ) as child:
        assert readyz(metrics) == (503, "the sink is away")
        before = resident_bytes(child.pid)
        for begin in range(0, 10_000, 1_000):
            topics.put(events(range(begin, begin + 1_000), rng, padding="x" * 10_000))
        assert readyz(metrics) == (503, "the sink is away")
        assert resident_bytes(child.pid) - before < FLAT_BYTES
        with running_postgres(directory, port=port):
            await until_exact(database_url, topics, child)
            assert readyz(metrics)[0] == 200
            print(f"memory: {before >> 20} MB before, {resident_bytes(child.pid) >> 20} MB after")


def readyz(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, " ".join(json.load(answer)["reasons"])
    except urllib.error.HTTPError as refused:
        return refused.code, " ".join(json.load(refused)["reasons"])


def resident_bytes(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("away", ["DATABASE_URL", "KAFKA_URL"])
async def test_sigterm_is_obeyed_while_the_database_or_kafka_is_away(
    topics, kafka, postgres, tmp_path, away, rng
):
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "KAFKA_URL": "kafka://127.0.0.1:1"}[away]
    environ = {**kafka, "DATABASE_URL": postgres, away: nowhere}
    with consumer(tmp_path, "totals", said="consumer_waits", **environ) as child:
        topics.put(events(range(10), rng))
    assert child._process.returncode == 0
    assert '"consumer_stopped"' in child.program.log.read_text("utf-8")


async def test_it_waits_for_topics_that_are_not_there_yet(apache_kafka, kafka, postgres, tmp_path, rng):
    environ = {**kafka, "DATABASE_URL": postgres}
    with consumer(tmp_path, "totals", said="consumer_waits", **environ) as child:
        assert "no kafkastore has made" in child.program.log.read_text("utf-8")
        topics = Topics(apache_kafka.bootstrap, kafka["KAFKA_PREFIX"])
        topics.put(events(range(100), rng))
        await until_exact(postgres, topics, child)


async def test_values_that_are_no_events_become_dead_letters_and_their_neighbours_go_on(
    topics, kafka, database_url, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": database_url}
    cases = yaml.safe_load((DATA / "consumers_dead.yml").read_text("utf-8"))
    raw = [
        value if isinstance(value, bytes | None) else json.dumps(value).encode()
        for value in map(dead_value, cases)
    ]
    good = events(range(len(raw)), rng)
    topics.put([one for pair in zip(good, (("clicks", value) for value in raw), strict=True) for one in pair])
    code, said = run_to_end(tmp_path, "totals", **environ)
    assert code == 0, said
    assert await found(database_url) == expected(topics.values)
    letters = await query(database_url, "SELECT reason, value FROM consumers_dead_letters")
    assert sorted(bytes(value or b"") for _, value in letters) == sorted(value or b"" for value in raw)
    for case, value in zip(cases, raw, strict=True):
        assert any(case["reason"] in reason for reason, kept in letters if kept == value)


async def test_a_row_that_the_database_refuses_is_buried_and_the_others_of_its_batch_are_counted(
    topics, kafka, postgres, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": postgres}
    await query(postgres, "ALTER TABLE users ADD CHECK (id <> 666)")
    refused = [("clicks", click(user_id=666, link_id=1)) for _ in range(2)]
    topics.put([*events(range(500), rng), refused[0], *events(range(500, 900), rng), refused[1]])
    topics.values = [value for value in topics.values if value.get("user_id") != 666]
    code, said = run_to_end(tmp_path / "refused", "totals", **environ)
    assert code == 0, said
    assert await found(postgres) == expected(topics.values)
    letters = await query(postgres, "SELECT reason, value FROM consumers_dead_letters")
    assert [json.loads(value)["user_id"] for _, value in letters] == [666, 666]
    assert "violates check constraint" in letters[0][0]


@pytest.mark.parametrize("how", ["retention", "made anew"])
async def test_records_that_kafka_has_no_longer_stop_their_partition_with_the_cure(
    topics, kafka, apache_kafka, postgres, tmp_path, rng, how
):
    environ = {**kafka, "DATABASE_URL": postgres}
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap})
    name = f"{kafka['KAFKA_PREFIX']}clicks"
    lone = Until(name, 0)
    topics.put(("clicks", click(link_id=1)) for _ in range(30))
    run_to_end(tmp_path / "before", "totals", **environ)
    remove(admin, [Until(name, partition) for partition in range(PARTITIONS)])
    code, said = run_to_end(tmp_path / "all-removed-was-read", "totals", **environ)
    assert (code, "partition_stopped" in said) == (0, False)
    lost = [click(link_id=2) for _ in range(3)]
    topics.put([("clicks", value) for value in lost])  # one each partition
    if how == "retention":
        remove(admin, [lone])
        topics.values.remove(lost[0])
    else:
        for future in admin.delete_topics([name]).values():
            future.result(10)
        topics = anew(apache_kafka, kafka["KAFKA_PREFIX"], topics)
    topics.put([("clicks", click(link_id=3)) for _ in range(3)])
    code, said = run_to_end(tmp_path / "stopped", "totals", **environ)
    assert code == 1
    assert "partition_stopped" in said
    assert "consumers run totals --skip-lost" in said
    assert (await found(postgres))["links"] != expected(topics.values)["links"]
    code, said = run_to_end(tmp_path / "skipping", "totals", "--skip-lost", **environ)
    assert code == 0, said
    assert (await found(postgres))["links"] == expected(topics.values)["links"]


def anew(apache_kafka, prefix, topics):
    """Make the topic again under its name, as soon as Kafka has forgotten the old one."""
    for _ in range(100):
        try:
            made = Topics(apache_kafka.bootstrap, prefix, ["clicks"], transactional="anew")
        except Exception:  # noqa: BLE001 - it is being deleted
            time.sleep(0.1)
        else:
            made.values = [value for value in topics.values if value["link_id"] != 2]
            return made
    raise AssertionError("the topic cannot be made again")


def remove(admin, untils):
    """Remove everything that partitions hold, as retention does."""
    ends = {until.partition: -1 for until in untils}
    wanted = [Until(untils[0].topic, partition, end) for partition, end in ends.items()]
    for future in admin.delete_records(wanted).values():
        future.result(10)


async def test_metrics_say_what_was_done_and_what_waits(topics, kafka, database_url, tmp_path, rng):
    port = free_port()
    environ = {**kafka, "DATABASE_URL": database_url, "METRICS_PORT": port, "HOST": "127.0.0.1"}
    topics.put([*events(range(500), rng), ("clicks", b"poison")])
    with consumer(tmp_path, "totals", **environ) as child:
        await until_exact(database_url, topics, child)

        def samples():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                families = text_string_to_metric_families(answer.read().decode())
            return {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            }

        async def caught_up():
            lag = [value for key, value in samples().items() if key[0] == "onward_consumer_lag_records"]
            return len(lag) == 3 * PARTITIONS and not any(lag)

        await until(caught_up, samples)
        counted = {key[0]: value for key, value in samples().items() if ("consumer", "totals") in key}
        records = sum(value for key, value in samples().items() if key[0] == "onward_consumer_records_total")
        assert records == 501
        assert counted["onward_consumer_dead_letters_total"] == 1
        assert counted["onward_consumer_partitions"] == 3 * PARTITIONS
        assert counted["onward_consumer_paused"] == 0
        assert readyz(port) == (200, "")


async def test_a_batch_that_begins_elsewhere_than_the_position_changes_nothing(sink, database_url):
    await sink.write(batch_of([click(link_id=1)]))
    for begin in (0, 2):
        with pytest.raises(MovedError):
            await sink.write(batch_of([click(link_id=1)], begin))
    assert (await found(database_url))["links"] == {1: 1}
    assert await sink.positions("cluster", {CLICKS: 0}) == {CLICKS: 1}
    assert await sink.positions("another cluster", {CLICKS: 7}) == {CLICKS: 7}


async def test_of_two_members_that_have_the_same_batch_one_writes_it(sink, database_url):
    other = Totals(database_url, visitor_days=35)
    batch = batch_of([click(link_id=1) for _ in range(500)])
    outcomes = await asyncio.gather(sink.write(batch), other.write(batch), return_exceptions=True)
    assert sorted(type(outcome) for outcome in outcomes if isinstance(outcome, Exception)) == [MovedError]
    assert (await found(database_url))["links"] == {1: 500}
    await other.close()


async def test_the_sql_of_the_docs_works(sink, database_url):
    await sink.write(batch_of([click(link_id=46), click(link_id=46, bot_class="search")]))
    for statement in statements_of_the_docs("sql", "## Cookbook"):
        assert len(await query(database_url, statement)) == 1
    for statement in statements_of_the_docs("sql", "**To count anew**")[:6]:
        assert await query(database_url, statement) == []
    await sink.positions("cluster", {CLICKS: 0})
    await sink.write(batch_of([click(link_id=2)]))
    assert (await found(database_url))["links"] == {2: 1}


async def test_people_are_counted_once_a_day_over_batches_and_links(sink, database_url):
    someone, other = f"{1:064x}", f"{2:064x}"
    for begin, visitor in enumerate((someone, someone, other, None)):
        await sink.write(batch_of([click(link_id=1, visitor_id=visitor)], begin))
    assert (await found(database_url))["days"] == {(1, "2026-01-31"): (4, 2, 0, 0)}


async def test_visitors_are_pruned_when_their_link_was_quiet_for_long_and_the_counts_stay(sink, database_url):
    await sink.write(batch_of([click(link_id=1), click(link_id=2)]))
    long_ago = datetime.now(UTC).date() - timedelta(days=36)
    on = long_ago if database_url.startswith("postgres") else long_ago.isoformat()
    await query(database_url, "UPDATE totals_link_days SET counted_on = $1 WHERE link_id = 1", on)
    before = await found(database_url)
    assert [await sink.prune(), await sink.prune()] == [1, 0]
    assert await found(database_url) == before
    assert await query(database_url, "SELECT link_id FROM totals_visitors") == [(2,)]


async def test_a_database_that_is_not_there_is_away(tmp_path):
    sink = Totals("postgresql://nobody@127.0.0.1:1/x", visitor_days=35)
    with pytest.raises(SinkAwayError, match="cannot be used"):
        await sink.positions("cluster", {CLICKS: 0})
    await sink.close()


async def test_changes_of_links_and_totals_never_wait_for_each_other_in_a_circle(postgres):
    """Both touch the same rows of `links`, in different orders."""
    sink, store = Totals(postgres, visitor_days=35), LinkStore(postgres)
    await sink.positions("cluster", {CLICKS: 0})
    forwards = [link_of({"id": number, "campaign": "x"}) for number in range(1, 200)]

    async def change_links():
        for _ in range(10):
            await store.save(forwards[::-1])

    async def count_clicks():
        for number in range(10):
            clicks = [click(link_id=link.id) for link in forwards]
            await sink.write(batch_of(clicks, number * len(forwards)))

    await asyncio.gather(change_links(), count_clicks())
    assert set((await found(postgres))["links"].values()) == {10}
    await sink.close()
    await store.close()


async def test_the_migrations_make_the_tables_that_the_code_says(database_url):
    sink = Totals(database_url, visitor_days=35)
    await sink.positions("cluster", {})
    dialect = sink._database.engine.dialect.name

    def differences(connection):
        options = {
            "version_table": CONSUMER_STEPS.version_table,
            "include_schemas": dialect == "postgresql",
            "include_object": lambda thing, name, kind, _reflected, _other: (
                not (kind == "table" and name.startswith("links"))
            ),
        }
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, [METADATA, REFERRALS[dialect].metadata])

    async with sink._database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await sink.close()


def test_the_steps_of_the_code_are_those_of_the_folder():
    config = Config()
    config.set_main_option("script_location", "consumers:migrations")
    steps = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(steps)) == CONSUMER_STEPS.names


def test_an_unknown_consumer_is_wrong_use():
    asked = subprocess.run(
        [sys.executable, "-m", "consumers.cli", "run", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 2
    assert "totals" in asked.stderr
