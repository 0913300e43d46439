"""Everything that can break between a visitor and Kafka, broken on purpose: real processes, servers and networks.

Every test ends with the oracle's line, `row N: answered=… found=… missing=0 doubled=0`. The rows are those of
docs/guarantees.md; the ones that are proved elsewhere:

    row  what breaks                               where
    6    a record refused among a thousand         test_refusal.py
    7    lines that are no events                  test_delivery.py, test_event.py
    16   hostile connections                       test_hostile.py
    17   attempts to lead visitors elsewhere       test_target.py, test_hostile.py
    18   forged fields                             test_event.py, test_hostile.py
    19   hostile user agents, damaged places       test_device.py, test_bots.py, test_geoip.py
    20   the database of links                     test_links.py, test_health.py
    21   certificates replaced while serving       test_tls.py
    29   settings changed with a batch in flight   test_pipeline.py

More from inside: test_shipper.py (8, 24, 27), test_publisher.py (25), test_pipeline.py (1, 9, 15, 22, 31),
test_delivery.py (1, 2, 14, 15), test_findings.py (11, 31).
"""

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from conftest import SEED, or_skip
from cutting_proxy import (
    ADD_PARTITIONS,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    CuttingProxy,
    KafkaProxy,
    api_of,
    asks_for,
)
from processes import SCRIPTS
from soak import soak
from test_health import MACHINE_SECONDS
from world import (
    Visitors,
    World,
    go_on,
    import_link,
    metric,
    pause,
    port_of,
    ready,
    resident_bytes,
    said,
    until,
)

from embedded.ports import free_port
from embedded.real_kafka import running_real_kafka
from kafkastore.queue import LEASE_SECONDS

FOLLOWED_SECONDS = LEASE_SECONDS + 1 + MACHINE_SECONDS
"""A lease, one look for it, and what a machine that others use too may take."""

FLAT_BYTES = 48 * 1024**2
"""What a kafkastore's memory may move by: a batch is 4,000 lines of 1 KB, as lines and as records."""

MOST_LINES = 4_000
"""In a batch."""

DROPPED = "onward_events_dropped_total"


@pytest.fixture(scope="module")
def apache_kafka(tmp_path_factory):
    """Yield a broker that only these tests kill."""
    with or_skip(running_real_kafka(tmp_path_factory.mktemp("apache-kafka"), brokers=1)) as server:
        yield server


@pytest.fixture(scope="module")
def database_url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("links")
    url = f"sqlite:///{directory}/onward.db"
    import_link(url, directory)
    return url


@pytest.fixture
async def make_world(database_url, topic_prefix, tmp_path, rng):
    async with contextlib.AsyncExitStack() as stack:

        def make(kafka, **environ):
            return World(
                directory=tmp_path,
                kafka=kafka,
                prefix=topic_prefix,
                visitors=Visitors(rng),
                environ={
                    "HOST": "127.0.0.1",
                    "KAFKA_URL": kafka.url,
                    "KAFKA_PREFIX": topic_prefix,
                    "KAFKA_PARTITIONS": 2,
                    "DATABASE_URL": database_url,
                    "ERROR_PAGE_URL": "https://shop.example/unknown",
                    "JOURNAL_DIR": tmp_path / "journal",
                    **environ,
                },
                stack=stack,
            )

        yield make


@pytest.fixture
def world(make_world, apache_kafka):
    return make_world(apache_kafka)


def ships(request):
    return b"EVALSHA" in request and b"{click_queue}:journal:" in request


def claims(request):
    return b"EVALSHA" in request and b"exactly_once" in request


def forgets(request):
    return b"EVALSHA" in request and b"{click_queue}:forgotten" in request


async def test_row_1_a_killed_kafkastore_is_followed_within_its_lease_and_nothing_is_lost_or_doubled(
    world, rng
):
    client = await world.client(await world.redis())
    collector = await world.collector()
    owner = await world.kafkastore()
    standby = await world.kafkastore(owns=False)
    async with world.visitors.clicking(port_of(collector)):
        for _ in range(2):
            await asyncio.sleep(rng.uniform(0.2, 1.2))
            owner.kill()
            assert 0 < await client.pttl("{click_queue}:lease") <= LEASE_SECONDS * 1000
            await until(lambda: said(standby, "queue_owned"), FOLLOWED_SECONDS)  # noqa: B023
            await world.start(owner)
            owner, standby = standby, owner
    await world.settle(1)


async def test_row_2_a_killed_collector_loses_no_click_that_it_answered(world, rng):
    await world.redis()
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        for _ in range(3):
            await asyncio.sleep(rng.uniform(0.1, 0.8))
            collector.kill()
            await world.start(collector)
    await world.settle(2)


async def test_row_3_kafka_away_costs_no_click_no_memory_and_no_order(world):
    await world.redis()
    collector, kafkastore = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 300)
        before = resident_bytes(kafkastore)
        async with world.away(*world.kafka.brokers):
            await asyncio.sleep(6)
            assert resident_bytes(kafkastore) < before + FLAT_BYTES
    found = await world.settle(3)
    assert world.visitors.failed == 0
    by_key = defaultdict(list)
    for one in found:
        if one.topic == "clicks":
            by_key[one.key].append(one.token)
    assert len(by_key) == 4
    assert all(tokens == sorted(tokens) for tokens in by_key.values())


async def test_row_4_a_kafka_that_is_away_at_the_start_is_waited_for_and_named(world):
    await world.redis()
    collector = await world.collector()
    async with world.visitors.clicking(port_of(collector)):
        proxy = await world.through(KafkaProxy(world.kafka.brokers[0].port))
        proxy.go_away()
        kafkastore = await world.kafkastore(owns=False, KAFKA_URL=proxy.url, METRICS_PORT=free_port())
        await until(lambda: said(kafkastore, "queue_waits"))
        assert (await ready(kafkastore))[:2] == (503, "not ready")
        assert f"Kafka at 127.0.0.1:{proxy.port}" in said(kafkastore, "queue_waits")[0]["why"]
        proxy.come_back()
        await until(lambda: said(kafkastore, "queue_goes_on"))
    await world.settle(4)


async def test_row_5_a_broker_of_three_is_killed_while_producing(make_world, apache_kafka_cluster, rng):
    world = make_world(apache_kafka_cluster)
    await world.redis()
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)), world.away(rng.choice(world.kafka.brokers)):
        answered = len(world.visitors.answered)
        await until(lambda: len(world.visitors.answered) > answered + 500)
        await world.until_arrived()
    await world.settle(5)


async def test_row_8_a_lost_reply_to_a_ship_stores_once(world):
    redis = await world.redis()
    proxy = await world.through(CuttingProxy(redis.port))
    collector = await world.collector(REDIS_URL=proxy.url)
    await world.kafkastore()
    async with world.visitors.clicking(port_of(collector)):
        for faults in range(1, 5):
            proxy.lose_reply_to(ships)
            await until(lambda: proxy.faults == faults)  # noqa: B023
    await world.settle(8)


async def test_row_9_a_lost_reply_to_a_claim_or_forget_leaves_the_batch_in_flight_once(world):
    redis = await world.redis()
    proxy = await world.through(CuttingProxy(redis.port))
    collector, kafkastore = await asyncio.gather(world.collector(), world.kafkastore(REDIS_URL=proxy.url))
    async with world.visitors.clicking(port_of(collector)):
        for faults, lost in enumerate((claims, forgets, claims, forgets), 1):
            proxy.lose_reply_to(lost)
            await until(lambda: proxy.faults == faults)  # noqa: B023
    await world.settle(9)
    assert said(kafkastore, "queue_goes_on")


async def test_row_10_a_redis_killed_under_load_loses_nothing_with_appendfsync_always(world, rng):
    redis = await world.redis(appendfsync="always")
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        for _ in range(3):
            await asyncio.sleep(rng.uniform(0.3, 1.2))
            async with world.away(redis):
                await asyncio.sleep(rng.uniform(0, 0.5))
    await world.settle(10)
    assert world.visitors.failed == 0


REFUSALS = {"full": "maxmemory", "read-only": "read only"}


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.skipif(
    FAKETIME is None and not os.environ.get("CI"), reason="no libfaketime: apt-get install faketime"
)
async def test_row_21_a_clock_that_jumps_back_gives_no_id_twice_and_loses_nothing(world, tmp_path):
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    assert FAKETIME is not None, "apt-get install faketime"
    await world.redis()
    collector, _ = await world.both(
        LD_PRELOAD=FAKETIME,
        FAKETIME_TIMESTAMP_FILE=clock,
        FAKETIME_NO_CACHE=1,
        FAKETIME_DONT_FAKE_MONOTONIC=1,  # no clock is set while it counts seconds
    )
    async with world.visitors.clicking(port_of(collector)):
        for jump in ("-3600", "+7200", "-2"):
            answered = len(world.visitors.answered)
            await until(lambda least=answered + 100: len(world.visitors.answered) > least)
            clock.write_text(f"{jump}\n")
    found = await world.settle(21)
    assert len({one.event_id for one in found}) == len(found)


@contextlib.asynccontextmanager
async def refusing(world, server, how):
    """Make a Redis refuse every write although it answers PING."""
    client = await world.client(server)
    if how == "full":
        await client.config_set("maxmemory", "1")
    else:
        await client.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        if how == "full":
            await client.config_set("maxmemory", "0")
        else:
            await client.replicaof("NO", "ONE")


@pytest.mark.parametrize("how", REFUSALS)
async def test_row_11_a_redis_that_takes_nothing_costs_no_visitor_and_no_click(world, how):
    redis = await world.redis()
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        async with refusing(world, redis, how):
            await until(lambda: said(collector, "shipping_waits"))
            assert REFUSALS[how] in said(collector, "shipping_waits")[0]["why"]
            assert (await ready(collector))[:2] == (200, "degraded")
            answered = len(world.visitors.answered)
            await until(lambda: len(world.visitors.answered) > answered + 300)
        await until(lambda: said(collector, "shipping_goes_on"))
    await world.settle(11)
    assert world.visitors.failed == 0


async def test_row_12_a_collector_killed_while_redis_is_away_leaves_a_journal_that_ships(world):
    redis = await world.redis()
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector), pause_seconds=0.005):
        async with world.away(redis):
            await until(lambda: said(collector, "shipping_waits"))
            answered = len(world.visitors.answered)
            await until(lambda: len(world.visitors.answered) > answered + 1000)
            assert world.visitors.failed == 0
            collector.kill()
            (journal,) = (world.directory / "journal").iterdir()
            with max(journal.glob("*.segment")).open("ab") as segment:
                segment.write(struct.pack("<II", 500, 0) + b"203.0.113.42 1769860800 clicks /t/cl")
            await world.start(collector)
        await until(lambda: said(collector, "journal_torn"))
        assert said(collector, "journal_torn")[0]["bytes_skipped"] == 8 + 36
    await world.settle(12)


async def test_row_13_a_full_journal_costs_events_that_are_counted_and_no_redirect(world):
    redis = await world.redis()
    collector = await world.collector(JOURNAL_MAX_BYTES=1024**2)
    await world.kafkastore()
    async with (
        world.away(redis),
        world.visitors.clicking(port_of(collector), pause_seconds=0.05, padding=4000),
    ):
        await until_not_ready(collector, "the journal is over half full")
        assert not await metric(collector, DROPPED), "503 comes before the first loss"
        await until_dropped(collector)
    dropped = await metric(collector, DROPPED)
    assert set(dropped) == {"journal_full"}
    assert said(collector, "events_dropped")
    assert world.visitors.failed == 0
    await world.settle(13, dropped=int(dropped["journal_full"]))


@pytest.fixture
def small_disk(tmp_path):
    """Give a folder on a disk of a megabyte."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "onward-test", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        cannot = pytest.fail if os.environ.get("CI") else pytest.skip
        cannot("a small disk needs the right to mount one: run this as root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_row_13_a_full_disk_costs_events_that_are_counted_and_no_redirect(world, small_disk):
    redis = await world.redis()
    collector = await world.collector(JOURNAL_DIR=small_disk)
    await world.kafkastore()
    async with (
        world.away(redis),
        world.visitors.clicking(port_of(collector), pause_seconds=0.05, padding=4000),
    ):
        await until_not_ready(collector, "the journal is over half full")
        assert not await metric(collector, DROPPED), "503 comes before the first loss"
        await until_dropped(collector)
        await until_not_ready(collector, "the journal cannot be written")
    dropped = await metric(collector, DROPPED)
    assert set(dropped) == {"journal_write"}
    assert said(collector, "events_dropped")
    assert world.visitors.failed == 0
    await world.settle(13, dropped=int(dropped["journal_write"]))


async def until_not_ready(collector, reason):
    async def not_ready():
        status, _, reasons = await ready(collector)
        return status == 503 and reason in reasons

    await until(not_ready)


async def until_dropped(collector):
    async def dropped():
        return sum((await metric(collector, DROPPED)).values()) > 20

    await until(dropped)


@pytest.mark.parametrize("hanging", ["redis", "kafka"])
async def test_row_14_sigterm_is_obeyed_within_10_s_while_redis_or_kafka_hangs(world, hanging):
    redis = await world.redis()
    to = {
        "redis": await world.through(CuttingProxy(redis.port)),
        "kafka": await world.through(KafkaProxy(world.kafka.brokers[0].port)),
    }
    collector, kafkastore = await world.both(REDIS_URL=to["redis"].url, KAFKA_URL=to["kafka"].url)
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 100)
        to[hanging].hang()
        answered = len(world.visitors.answered)
        await until(lambda: len(world.visitors.answered) > answered + 100)
        await world.stop(collector, kafkastore)
    to[hanging].come_back()
    await asyncio.gather(world.start(collector), world.start(kafkastore))
    await world.settle(14)


@pytest.mark.parametrize("asks", [PRODUCE, END_TXN])
async def test_row_15_an_owner_paused_past_its_lease_is_fenced_when_it_goes_on(world, asks):
    redis = await world.redis()
    proxy = await world.through(KafkaProxy(world.kafka.brokers[0].port))
    collector = await world.collector()
    owner = await world.kafkastore(KAFKA_URL=proxy.url)
    standby = await world.kafkastore(owns=False)
    async with world.visitors.clicking(port_of(collector)):
        proxy.at(asks_for(asks), lambda: pause(owner))
        await until(lambda: said(standby, "queue_owned"))
        answered = len(world.visitors.answered)
        await until(lambda: len(world.visitors.answered) > answered + 100)
        go_on(owner)
        await until(lambda: said(owner, "queue_waits"))
    assert redis.pid
    await world.settle(15)


async def test_row_22_a_redis_with_appendfsync_always_comes_back_with_all_it_acknowledged(world):
    """No state older than that can be on its disk; what is torn was never acknowledged."""
    redis = await world.redis(appendfsync="always")
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 300)
        async with older_state(redis) as log:
            redis.kill()
            with log.open("ab") as torn:
                torn.write(b"*3\r\n$5\r\nRPUSH\r\n$11\r\nclick_qu")
    await world.until_arrived()
    assert not await went_back(collector)
    await world.settle(22)


@pytest.mark.parametrize("claim_durable", [1, 0])
async def test_row_22_a_redis_that_comes_back_two_seconds_older_loses_nothing(world, claim_durable):
    """Its disk hangs, so that nothing more gets durable, two seconds later it dies, and comes back as it was then."""
    redis = await world.redis()
    collector, kafkastore = await world.both(CLAIM_DURABLE=claim_durable)
    client = await world.client(redis)
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 300)
        await client.config_set("appendfsync", "no")
        async with older_state(redis):
            await asyncio.sleep(2)
            redis.kill()
        answered = len(world.visitors.answered)
        await until(lambda: len(world.visitors.answered) > answered + 100)
    await world.until_arrived()
    assert await went_back(collector)
    assert claim_durable or said(kafkastore, "redis_went_back")
    await world.settle(22, same_id=not claim_durable)


@contextlib.asynccontextmanager
async def older_state(redis):
    """Copy the log of a Redis; at the end, when it is dead, it starts with the copy."""
    live, copy = redis.directory / "appendonlydir", redis.directory / "copy"
    await asyncio.to_thread(shutil.copytree, live, copy)
    yield next(copy.glob("*.incr.aof"))
    shutil.rmtree(live)
    copy.rename(live)
    await asyncio.to_thread(redis.start)


async def went_back(collector):
    return sum((await metric(collector, "onward_redis_went_back_total")).values())


async def test_row_23_a_redis_that_is_emptied_gets_what_the_journal_keeps(world):
    redis = await world.redis()
    # In segments of 3 MiB: one is shipped and closed, and none goes before half of the room is taken, 3,000 clicks.
    collector = await world.collector(JOURNAL_MAX_BYTES=24 * 1024**2)
    client = await world.client(redis)
    async with world.visitors.clicking(port_of(collector), padding=4000):
        await until(lambda: len(world.visitors.answered) > 900)
        await client.flushall()  # nobody has read what was in it
        await world.kafkastore()
        await until(lambda: len(world.visitors.answered) > 1000)
        await client.flushall()
    await world.until_arrived()
    assert await went_back(collector)
    assert not said(collector, "redis_went_back_too_far")
    await world.settle(23, same_id=True)


async def test_row_23_a_replica_that_lags_is_promoted(world):
    primary = await world.redis()
    link = await world.through(CuttingProxy(primary.port))
    replica = await world.redis(extra=("--replicaof", f"127.0.0.1 {link.port}"))
    name = await world.through(CuttingProxy(primary.port))
    collector, _ = await world.both(REDIS_URL=name.url)
    client = await world.client(replica)

    async def in_step():
        return (await client.info("replication"))["master_link_status"] == "up"

    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 300)
        await until(in_step)
        link.go_away()
        await asyncio.sleep(2)
        primary.kill()
        world.redises.remove(primary)
        await client.replicaof("NO", "ONE")
        name.target_port = replica.port
        answered = len(world.visitors.answered)
        await until(lambda: len(world.visitors.answered) > answered + 100)
    await world.until_arrived()
    assert await went_back(collector)
    await world.settle(23, same_id=True)


async def test_row_24_a_push_that_fails_inside_the_ship_moves_nothing(world):
    redis = await world.redis()
    collector = await world.collector()
    client = await world.client(redis)
    async with world.visitors.clicking(port_of(collector)):
        for _ in range(3):
            await until(lambda: client.exists("click_queue"))
            async with client.pipeline(transaction=True) as pipeline:
                await pipeline.rename("click_queue", "aside").set("click_queue", "no list").execute()
            answered = len(world.visitors.answered)
            await until(lambda: len(world.visitors.answered) > answered + 50)  # noqa: B023
            await client.rename("aside", "click_queue")
    assert "WRONGTYPE" in said(collector, "shipping_waits")[0]["why"]
    await world.kafkastore()
    await world.settle(24)


async def test_row_24_a_ship_delivered_three_seconds_after_the_question_stores_once(world):
    redis = await world.redis()
    proxy = await world.through(CuttingProxy(redis.port))
    collector = await world.collector(REDIS_URL=proxy.url)
    await world.kafkastore()
    async with world.visitors.clicking(port_of(collector)):
        for faults in range(1, 4):
            proxy.deliver_late(ships, 3)
            await until(lambda: proxy.faults == faults)  # noqa: B023
        await until(lambda: proxy.late == 3)
    await world.settle(24)


async def test_row_25_an_owner_dies_before_forget_while_another_queues_open_transaction_hides_its_commit(
    make_world, apache_kafka
):
    world = make_world(apache_kafka, QUEUES=2, KAFKA_PARTITIONS=1)
    redis = await world.redis()
    client = await world.client(redis)
    to_redis = await world.through(CuttingProxy(redis.port))
    to_kafka = await world.through(KafkaProxy(world.kafka.brokers[0].port))
    collector = await world.collector()
    dying = await world.kafkastore(QUEUES=1, REDIS_URL=to_redis.url)
    holding = await world.kafkastore(KAFKA_URL=to_kafka.url)
    async with world.visitors.clicking(port_of(collector)):
        to_kafka.instead_of(asks_for(END_TXN), lambda: pause(holding))
        await until(lambda: to_kafka.faults == 1)
        await client.pexpire("{click_queue:1}:lease", 60_000)  # its transaction is nobody else's to end
        to_redis.instead_of(forgets, dying.kill)
        await until(lambda: not dying.pid)
        hidden = await client.hget("{click_queue}:batch", "id")
        await world.end_lease()
        heir = await world.kafkastore(owns=False)
        await until(lambda: client.exists("{click_queue}:lease"))
        await asyncio.sleep(2)
        assert await client.hget("{click_queue}:batch", "id") == hidden, "the heir waits until it can know"
        go_on(holding)
        await until(lambda: said(heir, "queue_owned"))
    await world.settle(25)


async def test_row_26_a_record_refused_and_a_kill_at_any_step_of_isolating_it(world, rng):
    """A topic that takes no old records is given 999 new ones and an old one."""
    redis = await world.redis()
    await create_topic(world, "clicks", **{"message.timestamp.before.max.ms": "86400000"})
    proxy = await world.through(KafkaProxy(world.kafka.brokers[0].port))
    lines = [world.visitors.line(int(time.time())) for _ in range(1000)]
    lines[rng.randrange(1000)] = world.visitors.line(int(time.time()) - 10 * 86_400)
    client = await world.client(redis)
    await client.rpush("click_queue", *lines)
    world.visitors.pushed(lines)
    kafkastore = await world.kafkastore(owns=False, KAFKA_URL=proxy.url)
    for step in rng.sample(range(1, STEPS), 4):
        kafkastore.kill()
        await world.end_lease()
        proxy.instead_of(any_step(step), kafkastore.kill)
        await world.start(kafkastore)
        await until(lambda: not kafkastore.pid)
    await world.end_lease()
    await world.start(kafkastore)
    found = await world.settle(26)
    assert [one.topic for one in found].count("clicks") == 999
    assert [one.topic for one in found].count("clicks.dead") == 1


STEPS = 18
"""Requests it takes to isolate and publish (measured)."""


def any_step(nth):
    number = itertools.count(1)
    steps = (INIT_PRODUCER_ID, ADD_PARTITIONS, PRODUCE, END_TXN)
    return lambda request: api_of(request) in steps and next(number) == nth


async def create_topic(world, name, **config):
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka.bootstrap)
    await admin.start()
    answer = await admin.create_topics([NewTopic(world.prefix + name, 2, 1, topic_configs=config)])
    assert not answer.topic_errors[0][1], answer
    await admin.close()


async def test_row_27_a_journal_folder_wiped_between_runs_takes_nothing_back(world):
    await world.redis()
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 200)
    await world.until_arrived()
    collector.kill()
    shutil.rmtree(world.directory / "journal")
    await world.start(collector)
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 400)
    await world.settle(27)


async def test_row_27_a_journal_folder_wiped_under_load_is_noticed_and_made_again(world):
    await world.redis()
    collector, _ = await world.both()
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 200)
    await world.until_arrived()
    safe = dict(world.visitors.answered)
    async with world.visitors.clicking(port_of(collector)):
        shutil.rmtree(world.directory / "journal")
        await until(lambda: said(collector, "journal_taken_away"))
        world.visitors.answered = safe  # what stood only in the wiped files is gone with them
        answered = len(safe)
        await until(lambda: len(safe) > answered + 200)
    await world.settle(27)


async def test_row_27_a_journal_folder_that_cannot_be_made_again_costs_no_visitor(world):
    await world.redis()
    collector, _ = await world.both()
    journal = world.directory / "journal"
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 200)
        shutil.rmtree(journal)
        journal.write_text("no folder")
        answered = len(world.visitors.answered)
        await until(lambda: len(world.visitors.answered) > answered + 600)
        status, _, reasons = await ready(collector)
        assert (status, reasons[0]) == (503, "the journal cannot be written")
        journal.unlink()
        await until(lambda: said(collector, "journal_taken_away"))
    assert not world.visitors.failed
    assert not await went_back(collector)
    await world.settle(27)  # what Redis had not yet, was in memory


async def test_row_27_journals_of_dead_processes_adopted_by_several_at_once_arrive_once(world):
    redis = await world.redis()
    collector, _ = await world.both()
    collector.kill()
    async with world.away(redis):
        for answered in (200, 400, 600):
            await world.start(collector)
            async with world.visitors.clicking(port_of(collector), pause_seconds=0.005):
                await until(lambda: len(world.visitors.answered) > answered)  # noqa: B023
            collector.kill()
        adopters = await asyncio.gather(*(world.collector(WEB_CONCURRENCY=2) for _ in range(2)))
    await world.until_arrived()
    assert sum(len(said(one, "journal_adopted")) for one in adopters) == 4
    await world.settle(27)


async def test_row_28_redis_swapped_between_runs_and_one_away_at_restart_mix_nothing_up(world):
    one, two = await world.redis(), await world.redis()
    named = {"REDIS_URL_CLICKSTORE_1": one.url, "REDIS_URL_CLICKSTORE_2": two.url}
    swapped = {"REDIS_URL_CLICKSTORE_1": two.url, "REDIS_URL_CLICKSTORE_2": one.url}
    collector, kafkastore = await world.both(**named)
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 300)
        collector.kill()
        kafkastore.kill()
    async with world.away(two):
        collector = await world.collector(**swapped)
        await world.kafkastore(owns=False, **swapped)
        async with world.visitors.clicking(port_of(collector)):
            answered = len(world.visitors.answered)
            await until(lambda: len(world.visitors.answered) > answered + 300)
    await world.settle(28)


ERRORS = {
    "UNKNOWN_SERVER_ERROR": -1,
    "NOT_LEADER_OR_FOLLOWER": 6,
    "REQUEST_TIMED_OUT": 7,
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": 20,
    "TOPIC_AUTHORIZATION_FAILED": 29,
    "OUT_OF_ORDER_SEQUENCE_NUMBER": 45,
    "INVALID_PRODUCER_EPOCH": 47,
    "INVALID_TXN_STATE": 48,
    "CONCURRENT_TRANSACTIONS": 51,
    "KAFKA_STORAGE_ERROR": 56,
    "UNKNOWN_PRODUCER_ID": 59,
    "PRODUCER_FENCED": 90,
    "TRANSACTION_ABORTABLE": 120,
}


async def test_row_30_a_transaction_that_is_refused_in_part_is_not_committed_but_published_whole_later(world):
    await world.redis()
    proxy = await world.through(KafkaProxy(world.kafka.brokers[0].port))
    collector, _ = await world.both(KAFKA_URL=proxy.url)
    async with world.visitors.clicking(port_of(collector)):
        for faults, error in enumerate(ERRORS.values(), 1):
            proxy.refuse(f"{world.prefix}clicks", error)
            await until(lambda: proxy.faults == faults)  # noqa: B023
    await world.settle(30)


async def test_row_30_a_connection_cut_at_any_step_of_a_transaction_costs_nothing(world):
    await world.redis()
    proxy = await world.through(KafkaProxy(world.kafka.brokers[0].port))
    collector, _ = await world.both(KAFKA_URL=proxy.url)
    faults = itertools.count(1)
    async with world.visitors.clicking(port_of(collector)):
        for api in (ADD_PARTITIONS, PRODUCE, END_TXN, INIT_PRODUCER_ID):
            for fault in (proxy.lose_reply_to, partial(proxy.instead_of, act=lambda: None)):
                fault(asks_for(api))
                if api == INIT_PRODUCER_ID:
                    proxy.refuse(f"{world.prefix}clicks", ERRORS["INVALID_TXN_STATE"])
                    next(faults)
                number = next(faults)
                await until(lambda: proxy.faults == number)  # noqa: B023
    await world.settle(30)


async def test_row_31_a_deleted_topic_of_checkpoints_doubles_one_batch_at_most_and_is_reported(world):
    redis = await world.redis()
    proxy = await world.through(CuttingProxy(redis.port))
    collector = await world.collector()
    kafkastore = await world.kafkastore(REDIS_URL=proxy.url)
    async with world.visitors.clicking(port_of(collector)):
        await until(lambda: len(world.visitors.answered) > 100)
        await world.until_arrived()
        proxy.instead_of(forgets, kafkastore.kill)
        await until(lambda: not kafkastore.pid)
    await delete_topic(world.kafka, f"{world.prefix}onward.batches")
    check = await asyncio.to_thread(
        subprocess.run,
        [SCRIPTS / "kafkastore", "check"],
        env={**os.environ, **{name: str(value) for name, value in world.environ.items()}},
        check=False,
        capture_output=True,
        text=True,
    )
    assert check.returncode == 1
    assert "onward.batches is missing" in check.stdout
    await world.start(kafkastore)
    await world.settle(31, same_id=True, doubled_at_most=MOST_LINES)
    assert said(kafkastore, "checkpoints_lost")


async def delete_topic(kafka, name):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_topics([name])

    async def gone():
        return name not in await admin.list_topics()

    await until(gone)
    await admin.close()


async def test_row_32_everything_breaks_at_random(world, request):
    """`make soak` runs it for ten minutes."""
    await soak(world, request.config.stash[SEED], float(os.environ.get("SOAK_SECONDS", "30")))


def test_every_row_has_a_test_that_is_there():
    guarantees = (Path(__file__).parents[1] / "docs" / "guarantees.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", guarantees, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 33))
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for _, named in rows:
        names = re.findall(r"`(test_\w+)`", named)
        assert names
        assert [name for name in names if f"def {name}(" not in tests] == []
