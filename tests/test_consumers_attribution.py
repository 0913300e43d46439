"""Attribution with real servers: each install once in SQL and once in Kafka, whatever is killed or away."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from attribution_world import (
    NOON,
    TOPICS,
    attributed,
    click,
    click_message,
    count,
    install,
    install_message,
    keys_of,
    macs,
    records_of,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from consumers_world import Topics, consumer, query, run_to_end
from prometheus_client.parser import text_string_to_metric_families
from test_attribution import new_database, opened
from test_consumers_totals import FLAT_BYTES, readyz, resident_bytes, until

from collector.event import CLICKS
from consumers.attribution import Attribution
from consumers.mac import mac_id
from consumers.outbox import Outbox
from consumers.progress import Progress
from consumers.sink import Batch, Span
from embedded.ports import free_port
from embedded.postgres import running_postgres
from kafkastore.connection import PublishError
from kafkastore.publisher import Publisher
from kafkastore.settings import KafkastoreSettings
from process.settings import read_settings

HERE = Path(__file__).parent
KILLS = {"postgres": 20, "sqlite": 8}
KILLS_OF_WHOLE_PROCESSES = int(os.environ.get("KILLS", "1"))
MOST_SECONDS = 0.5  # of a life, of which it starts in 0.1 to 0.2
IN_CLICK, IN_APP = TopicPartition("clicks", 0), TopicPartition("inapp", 0)


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/onward.db"
    return await new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def postgres(postgres_url):
    return await with_tables(await new_database(postgres_url))


async def with_tables(database_url):
    sink = await opened(database_url)
    await sink.close()
    return database_url


@pytest.fixture
def topics(apache_kafka, topic_prefix):
    return Topics(apache_kafka.bootstrap, topic_prefix, TOPICS)


@pytest.fixture
def kafka(apache_kafka, topic_prefix):
    return {"KAFKA_URL": apache_kafka.url, "KAFKA_PREFIX": topic_prefix}


class Traffic:
    """Devices that click and install now, each once; some only click, some only install."""

    def __init__(self, rng):
        self.rng = rng
        self.wanted = {}

    def events(self, devices):
        """Give events of new devices, in any order."""
        found = []
        now = datetime.now(UTC).replace(microsecond=0)
        for _ in range(devices):
            adid = f"{self.rng.getrandbits(128):032x}"
            key = keys_of(adid)[self.rng.randrange(3)]
            clicked, installed = click(key, now), install(adid, now + timedelta(seconds=60))
            kind = self.rng.choices(("both", "click", "install", "other"), (6, 2, 1, 1))[0]
            if kind in {"both", "click"}:
                found.append((CLICKS, clicked))
            if kind in {"both", "install"}:
                found.append(("inapp", installed))
            if kind == "both":
                self.wanted[installed["event_id"]] = clicked["event_id"]
            if kind == "other":
                found.append(("inapp", install(adid, path="/t/open", event="open")))
        self.rng.shuffle(found)
        return found

    async def done(self, database_url):
        """Tell whether SQL says what it must."""
        return {one: other for one, (other, _) in (await attributed(database_url)).items()} == self.wanted

    async def check(self, database_url, bootstrap, prefix):
        """Fail unless both outputs hold each attribution once."""
        assert await self.done(database_url)
        assert await count(database_url, "attribution_outbox") == 0
        told = macs(bootstrap, prefix)
        assert Counter(event["params"]["install"] for event in told) == Counter(list(self.wanted))
        assert {event["params"]["install"]: event["params"]["click"] for event in told} == self.wanted
        assert {event["event_id"] for event in told} == {mac_id(*pair) for pair in self.wanted.items()}


async def told(traffic, database_url, child):
    """Wait until every /t/mac there must be has left for Kafka."""

    async def left():
        return await traffic.done(database_url) and await count(database_url, "attribution_outbox") == 0

    await until(left, child.program.log.read_text)


async def test_every_install_is_told_once_and_a_second_run_changes_nothing(
    topics, kafka, apache_kafka, tmp_path, rng
):
    database_url = f"sqlite:///{tmp_path}/onward.db"
    environ = {**kafka, "DATABASE_URL": database_url}
    traffic = Traffic(rng)
    topics.put(traffic.events(300))
    topics.put_and_abort(Traffic(rng).events(20))
    for run in range(2):
        code, said = run_to_end(tmp_path / str(run), "attribution", **environ)
        assert code == 0, said
        await traffic.check(database_url, apache_kafka.bootstrap, topics.prefix)
    for event in macs(apache_kafka.bootstrap, topics.prefix):
        assert (event["event"], event["network"]) == ("mac", "7games")
    # What it wrote is read back, and passed over.
    assert await count(database_url, "consumers_dead_letters") == 0


async def test_in_text_a_mac_holds_the_two_whole_messages(topics, kafka, apache_kafka, postgres, tmp_path):
    adid = "ECC27E57-1605-2714-CAFE-13DC6DFB742F"
    clicked, installed = click_message(keys_of(adid)[0], NOON), install_message(adid, NOON)
    mixed = install("0CC27E57-1605-2714-CAFE-13DC6DFB742F", NOON)
    mixed_click = click_message(mixed["lookup_key"], NOON)
    topics.put([(CLICKS, clicked), ("inapp", installed), (CLICKS, mixed_click), ("inapp", mixed)])
    code, said = run_to_end(tmp_path, "attribution", **kafka, DATABASE_URL=postgres)
    assert code == 0, said
    json_value, message = sorted(
        macs(apache_kafka.bootstrap, topics.prefix), key=lambda event: not isinstance(event, dict)
    )
    assert message.params == {b"click": clicked, b"install": installed}
    assert (message.platform, message.country, message.ts) == ("ios", "DE", int(NOON.timestamp()))
    assert json_value["params"]["install"] == mixed["event_id"]


async def test_killed_at_random_points_every_install_is_there_once_in_sql_and_in_kafka(
    topics, kafka, apache_kafka, database_url, tmp_path, rng
):
    traffic = Traffic(rng)
    values = {(topic, number): [] for topic in (CLICKS, "inapp") for number in range(2)}
    for topic, value in traffic.events(3_000):
        values[topic, rng.randrange(2)].append(json.dumps(value))
    file = tmp_path / "values.json"
    file.write_text(json.dumps([[*where, rows] for where, rows in values.items()]))
    kills = KILLS["sqlite" if database_url.startswith("sqlite") else "postgres"]
    lives = [*(rng.uniform(0.05, MOST_SECONDS) for _ in range(kills)), 60]
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, HERE / "attribution_member.py", file],
        input="".join(f"{seconds}\n" for seconds in lives),
        env={**os.environ, **kafka, "DATABASE_URL": database_url, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    codes = [int(code) for code in ended.stdout.split()]
    assert len(codes) == len(lives), ended.stderr
    assert codes[-1] == 0, ended.stderr
    print(f"killed={codes.count(-9)} attributions={len(traffic.wanted)}")
    assert codes.count(-9) >= kills // 2
    await traffic.check(database_url, apache_kafka.bootstrap, topics.prefix)


async def test_whole_processes_killed_under_load_lose_and_double_nothing(
    topics, kafka, apache_kafka, postgres, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": postgres}
    traffic, enough = Traffic(rng), threading.Event()

    def put_for_ever():
        while not enough.wait(0.05):
            topics.put(traffic.events(30))

    putting = threading.Thread(target=put_for_ever)
    putting.start()
    try:
        for _ in range(KILLS_OF_WHOLE_PROCESSES):
            before = len(macs(apache_kafka.bootstrap, topics.prefix))
            with consumer(tmp_path, "attribution", **environ) as child:

                async def moves(before=before):
                    return len(macs(apache_kafka.bootstrap, topics.prefix)) > before

                await until(moves, child.program.log.read_text)
                await asyncio.sleep(rng.uniform(0, 0.5))
                child.kill()
    finally:
        enough.set()
        putting.join()
    code, said = run_to_end(tmp_path / "last", "attribution", **environ)
    assert code == 0, said
    await traffic.check(postgres, apache_kafka.bootstrap, topics.prefix)


async def test_members_that_join_and_leave_lose_and_double_nothing(
    topics, kafka, apache_kafka, postgres, tmp_path, rng
):
    environ = {**kafka, "DATABASE_URL": postgres}
    traffic = Traffic(rng)
    with consumer(tmp_path / "first", "attribution", **environ):
        topics.put(traffic.events(200))
        with consumer(tmp_path / "second", "attribution", **environ) as second:
            topics.put(traffic.events(200))
            await told(traffic, postgres, second)
            with consumer(tmp_path / "third", "attribution", **environ) as third:
                topics.put(traffic.events(200))
                await told(traffic, postgres, third)
            topics.put(traffic.events(200))
        topics.put(traffic.events(200))
        await told(traffic, postgres, second)
    await traffic.check(postgres, apache_kafka.bootstrap, topics.prefix)


@pytest.mark.parametrize(
    "step", ["claim", "publish", "forget", "after claim", "after publish", "after forget"]
)
async def test_a_step_of_publishing_that_fails_or_is_not_known_to_have_worked_loses_and_doubles_nothing(
    topics, kafka, apache_kafka, tmp_path, rng, monkeypatch, step
):
    """What a kill or a lost answer at this point leaves behind."""
    database_url, failures = f"sqlite:///{tmp_path}/onward.db", ["first", "second"]
    owner, name = {
        "claim": (Outbox, "claim"),
        "publish": (Publisher, "publish"),
        "forget": (Outbox, "forget"),
    }[step.removeprefix("after ")]
    works = getattr(owner, name)

    async def fails_twice(self, *given):
        if "after" in step:
            answer = await works(self, *given)
        if failures:
            raise PublishError(f"the test said so: {failures.pop(0)}")
        return answer if "after" in step else await works(self, *given)

    monkeypatch.setattr(owner, name, fails_twice)
    monkeypatch.setattr("consumers.outbox_publisher.RETRY_SECONDS", 0.01)
    traffic = Traffic(rng)
    async with member(database_url, kafka) as write:
        async with asyncio.timeout(20):
            while failures:  # what was published already with an earlier batch meets none
                await write(traffic.events(20))
    await traffic.check(database_url, apache_kafka.bootstrap, topics.prefix)


@asynccontextmanager
async def member(database_url, kafka, name="attribution"):
    """Open a member that publishes; give what writes events by it. At the end everything is published."""
    sink = Attribution(
        database_url, read_settings(KafkastoreSettings, kafka), Progress(name), wait_seconds=3600
    )
    partitions = {topic: TopicPartition(kafka["KAFKA_PREFIX"] + topic, 0) for topic in (CLICKS, "inapp")}

    async def write(events):
        position = await sink.positions("cluster", dict.fromkeys(partitions.values(), 0))
        spans = []
        for topic, partition in partitions.items():
            values, begin = [value for name, value in events if name == topic], position[partition]
            spans.append(Span(partition, begin, begin + len(values), records_of(partition, values, begin)))
        await sink.write(Batch("cluster", spans))

    yield write
    await sink.drain()
    await sink.close()


async def test_two_that_both_believe_they_publish_double_nothing(
    topics, kafka, apache_kafka, database_url, rng
):
    """As when a member wakes up that has been replaced meanwhile."""
    traffic = Traffic(rng)
    async with member(database_url, kafka) as one, member(database_url, kafka) as other:
        for _ in range(40):
            await one(traffic.events(6))
            await other(traffic.events(6))
    await traffic.check(database_url, apache_kafka.bootstrap, topics.prefix)


async def test_a_mac_that_kafka_refuses_stays_in_the_outbox_with_the_reason_and_the_others_go(
    topics, kafka, apache_kafka, database_url
):
    limit_bytes(apache_kafka.bootstrap, f"{topics.prefix}inapp", 5_000)
    clicks = [click(keys_of(f"{number:032x}")[0]) for number in range(7)]
    installs = [install(f"{number:032x}") for number in range(7)]
    installs[3]["user_agent"] = "x" * 10_000
    async with member(database_url, kafka) as write:
        await write([*((CLICKS, one) for one in clicks), *(("inapp", one) for one in installs)])
    found = {event["params"]["install"] for event in macs(apache_kafka.bootstrap, topics.prefix)}
    assert found == {one["event_id"] for one in installs if one is not installs[3]}
    ((event_id, reason),) = await query(database_url, "SELECT event_id, refused FROM attribution_outbox")
    assert str(event_id) == mac_id(installs[3]["event_id"], clicks[3]["event_id"])
    assert "MessageSizeTooLarge" in reason


def limit_bytes(bootstrap, topic, most):
    entry = ConfigEntry("max.message.bytes", str(most), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


async def test_while_the_database_is_away_it_pauses_with_flat_memory_and_then_catches_up(
    topics, kafka, apache_kafka, open_directory, tmp_path, rng
):
    directory, port, metrics = open_directory / f"away-{time.time_ns()}", free_port(), free_port()
    with running_postgres(directory, port=port) as url:
        database_url = await with_tables(await new_database(url))
        environ = {**kafka, "DATABASE_URL": database_url, "METRICS_PORT": metrics, "HOST": "127.0.0.1"}
    traffic = Traffic(rng)
    with consumer(tmp_path, "attribution", said="consumer_waits", **environ) as child:
        before = resident_bytes(child.pid)
        for _ in range(10):
            events = traffic.events(300)
            topics.put([(topic, value | {"padding": "x" * 10_000}) for topic, value in events])
        assert readyz(metrics) == (503, "the sink is away")
        assert resident_bytes(child.pid) - before < FLAT_BYTES
        with running_postgres(directory, port=port):
            await told(traffic, database_url, child)
            assert readyz(metrics)[0] == 200
            await traffic.check(database_url, apache_kafka.bootstrap, topics.prefix)
            print(f"memory: {before >> 20} MB before, {resident_bytes(child.pid) >> 20} MB after")


async def test_poison_becomes_dead_letters_and_metrics_say_what_came_of_the_rest(
    topics, kafka, apache_kafka, postgres, tmp_path, rng
):
    port = free_port()
    environ = {**kafka, "DATABASE_URL": postgres, "METRICS_PORT": port, "HOST": "127.0.0.1"}
    traffic = Traffic(rng)
    poison = [(CLICKS, b"poison"), ("inapp", b"/t/ist nonsense"), ("inapp", None)]
    topics.put([*traffic.events(50), *poison, *traffic.events(50)])
    with consumer(tmp_path, "attribution", **environ) as child:
        await told(traffic, postgres, child)

        def samples():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                families = text_string_to_metric_families(answer.read().decode())
            return Counter(
                {
                    name: sum(sample.value for sample in group)
                    for family in families
                    for name, group in [(family.name, family.samples)]
                }
            )

        async def counted():
            return samples()["onward_consumer_attributions"] == len(traffic.wanted)

        await until(counted, samples)
        assert samples()["onward_consumer_dead_letters"] == len(poison)
    assert await count(postgres, "consumers_dead_letters") == len(poison)
    await traffic.check(postgres, apache_kafka.bootstrap, topics.prefix)
