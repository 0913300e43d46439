"""The servers of this machine: they start, survive a kill with their data, stop, and say what is missing."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from embedded import apache_jars
from embedded.apache_kafka import running_apache_kafka
from embedded.kafka import nodes_seen_by, running_kafka
from embedded.ports import FIRST, LAST, accepts, free_port, free_ports
from embedded.postgres import running_postgres
from embedded.redis import running_redis
from embedded.server import ServerUnavailable, last_will, wheel_file

PATIENCE_SECONDS = 30


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def lives(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def script(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


# Redis


@pytest.fixture(params=["wheel", "system"])
def binary(request, redis_binary):
    if request.param == "wheel":
        return None
    unavailable = pytest.fail if os.environ.get("CI") else pytest.skip
    return redis_binary or unavailable("no redis-server on PATH: apt-get install redis-server")


def test_redis_keeps_every_acknowledged_write_over_a_kill(tmp_path, binary):
    with running_redis(tmp_path, appendfsync="always", binary=binary) as server:
        pid = server.pid
        with Redis.from_url(server.url) as client:
            client.rpush("click_queue", "a click")
            server.kill()
            assert server.pid == 0
            assert not lives(pid)
            server.start()
            assert client.lrange("click_queue", 0, -1) == [b"a click"]
        assert server.pid not in (0, pid)


def test_redis_keeps_its_data_from_one_run_to_the_next(tmp_path, binary):
    for times_before in range(2):
        with running_redis(tmp_path, binary=binary) as server, Redis.from_url(server.url) as client:
            assert client.llen("runs") == times_before
            client.rpush("runs", "run")


def test_redis_takes_the_options_it_is_given(tmp_path):
    with (
        running_redis(tmp_path, appendfsync="always", extra=("--maxmemory", "10mb")) as server,
        Redis.from_url(server.url) as client,
    ):
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("maxmemory") == {"maxmemory": str(10 * 1024 * 1024)}


def test_redis_listens_on_loopback_only(tmp_path):
    with running_redis(tmp_path) as server, Redis.from_url(server.url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_a_second_redis_on_the_same_data_is_refused_with_the_pid_and_the_cure(tmp_path):
    with running_redis(tmp_path) as first:
        with pytest.raises(ServerUnavailable) as refused, running_redis(tmp_path):
            pass
        assert f"already runs on {tmp_path}, as process {first.pid}" in str(refused.value)
        assert f"kill {first.pid}" in str(refused.value)
        assert lives(first.pid)


def test_the_pid_file_of_a_crashed_run_does_not_stop_the_next_run(tmp_path):
    with running_redis(tmp_path) as server:
        server.kill()
    (tmp_path / "redis.pid").write_text(f"{os.getpid()}\n")  # even if somebody else has that number by now
    with running_redis(tmp_path) as server:
        assert (tmp_path / "redis.pid").read_text() == f"{server.pid}\n"


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerUnavailable, match=f"wants port {port} .* choose another"):
            running_redis(tmp_path, port=port).__enter__()


def test_a_server_that_ends_while_starting_is_quoted(tmp_path):
    with (
        pytest.raises(ServerUnavailable, match=r"(?s)ended while starting.*no-such-option"),
        running_redis(tmp_path, extra=("--no-such-option", "1")),
    ):
        pass
    assert (tmp_path / "redis.log").exists()


def test_the_log_of_the_run_before_is_kept_and_no_more(tmp_path):
    for _ in range(3):
        with running_redis(tmp_path):
            pass
    assert sorted(path.name for path in tmp_path.glob("redis.log*")) == ["redis.log", "redis.log.1"]


async def test_the_redis_of_a_test_is_empty_and_not_shared_with_the_next(redis):
    assert await redis.dbsize() == 0
    await redis.set("left", "behind")


async def test_nothing_is_left_behind_by_the_test_before(redis):
    assert await redis.dbsize() == 0


# Whose child it is

ORPHAN = """
import sys, time
from pathlib import Path
from embedded.redis import running_redis
with running_redis(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_the_process_that_started_it_however_that_ends(tmp_path, end):
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as parent:
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.send_signal(end)
    eventually(lambda: not lives(pid))
    with running_redis(tmp_path) as server:
        assert lives(server.pid)


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def test_who_is_deaf_to_the_last_will_is_killed_when_the_time_is_up():
    with subprocess.Popen(
        [sys.executable, "-c", DEAF], stdout=subprocess.PIPE, start_new_session=True
    ) as deaf:
        assert deaf.stdout.readline() == b"deaf\n"
        last_will(deaf.pid, signal.SIGTERM, 1).communicate()
        assert deaf.wait(10) == -signal.SIGKILL


def test_a_server_that_ended_by_itself_can_be_started_again(tmp_path):
    with running_redis(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: server.pid == 0)
        server.start()
        assert lives(server.pid)


def test_ctrl_c_in_a_terminal_reaches_us_and_not_the_server(tmp_path):
    with running_redis(tmp_path) as server:
        assert os.getpgid(server.pid) == server.pid
        assert os.getsid(server.pid) != os.getsid(0)


def test_a_server_is_gone_and_its_port_free_after_the_stop(tmp_path):
    with running_redis(tmp_path / "redis") as redis, running_kafka(tmp_path / "kafka") as kafka:
        ports = [redis.port, kafka.brokers[0].port]
        assert all(accepts(port) for port in ports)
    assert not any(accepts(port) for port in ports)
    with running_redis(tmp_path / "redis", port=ports[0]), running_kafka(tmp_path / "kafka", port=ports[1]):
        pass


def test_ports_are_different_and_none_that_an_outgoing_connection_may_get():
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(FIRST <= port <= LAST < 32768 for port in ports)


def test_no_port_is_given_twice_nor_to_two_processes():
    ours = set(free_ports(50))
    script = "from embedded.ports import free_ports\nprint(*(free_ports(1)[0] for _ in range(1000)))"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    theirs = set(map(int, told.stdout.split()))
    assert len(theirs) == 1000
    assert not theirs & ours


# Kafka


async def test_the_wheels_broker_carries_records_and_comes_back_after_a_kill(wheel_kafka, topic_prefix):
    topic = f"{topic_prefix}clicks"
    assert wheel_kafka.url == f"kafka://{wheel_kafka.bootstrap}"
    await create_topic(wheel_kafka, topic)
    await produce(wheel_kafka, topic, b"one")
    assert await read(wheel_kafka, topic, 1) == [b"one"]
    [broker] = wheel_kafka.brokers
    broker.kill()
    assert not nodes_seen_by(broker.port)
    broker.start()
    await create_topic(wheel_kafka, topic)  # it has forgotten everything


async def test_apache_kafka_keeps_a_transaction_over_a_kill(apache_kafka, topic_prefix):
    topic = f"{topic_prefix}clicks"
    assert apache_kafka.transactions
    await create_topic(apache_kafka, topic)
    # Many partitions that lose their leader with it keep the broker long in a state in which 4.3 and 4.4 go wrong.
    await create_topic(apache_kafka, f"{topic_prefix}others", partitions=200)
    await produce(apache_kafka, topic, b"one", b"two", transactional_id=f"{topic_prefix}writer")
    [broker] = apache_kafka.brokers
    broker.kill()
    assert not accepts(broker.port)
    await asyncio.to_thread(broker.start)
    assert await read(apache_kafka, topic, 2) == [b"one", b"two"]


async def test_a_cluster_of_three_goes_on_without_one_and_takes_it_back(apache_kafka_cluster, topic_prefix):
    topic = f"{topic_prefix}clicks"
    first, second, third = apache_kafka_cluster.brokers
    everyone = {first.node, second.node, third.node}
    assert all(nodes_seen_by(broker.port) == everyone for broker in apache_kafka_cluster.brokers)
    await create_topic(apache_kafka_cluster, topic, replicas=3)
    await produce(apache_kafka_cluster, topic, b"with three")
    first.kill()
    await asyncio.to_thread(eventually, lambda: nodes_seen_by(second.port) == everyone - {first.node})
    await produce(apache_kafka_cluster, topic, b"with two")
    await asyncio.to_thread(first.start)
    await asyncio.to_thread(eventually, lambda: nodes_seen_by(second.port) == everyone)
    assert await read(apache_kafka_cluster, topic, 2) == [b"with three", b"with two"]


async def create_topic(server, topic, replicas=1, partitions=1):
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, partitions, replicas)])
        assert [error[1] for error in answer.topic_errors] == [0], answer
    finally:
        await admin.close()


async def produce(server, topic, *values, transactional_id=None):
    options = {"transactional_id": transactional_id} if transactional_id else {}
    producer = AIOKafkaProducer(bootstrap_servers=server.bootstrap, acks="all", **options)
    async with producer, producer.transaction() if transactional_id else contextlib.nullcontext():
        for value in values:
            await asyncio.wait_for(producer.send_and_wait(topic, value, partition=0), PATIENCE_SECONDS)


async def read(server, topic, count):
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=server.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    async with consumer, asyncio.timeout(PATIENCE_SECONDS):
        return [(await consumer.getone()).value for _ in range(count)]


# What Apache Kafka needs


def test_a_missing_java_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ServerUnavailable, match=r"there is none: apt-get install openjdk-17-jre-headless maven"
    ):
        running_apache_kafka(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ("java.specification.version = 11", "or newer, and .*java is 11: apt-get"),
        ("java.specification.version = 1.8", "or newer, and .*java is 8: apt-get"),
        ("Unable to locate a Java Runtime.", "does not tell its version.*apt-get"),
    ],
)
def test_a_java_that_will_not_do_is_named_with_the_cure(tmp_path, monkeypatch, says, complaint):
    script(tmp_path / "bin" / "java", f"echo '    {says}' >&2")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ServerUnavailable, match=complaint):
        apache_jars.java()


def test_a_missing_maven_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerUnavailable, match=r"there is none: apt-get install .* maven"):
        apache_jars.jars("1.2.3", tmp_path / "store")


def test_a_maven_that_fails_is_quoted_and_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    script(tmp_path / "bin" / "mvn", "echo '[ERROR] Network is unreachable'", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ServerUnavailable, match=r"(?s)is there a network.*Network is unreachable"):
        apache_jars.jars("1.2.3", tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["lock"]


def test_two_that_want_the_jars_at_once_fetch_them_once(tmp_path, monkeypatch):
    script(
        tmp_path / "bin" / "mvn",
        f"echo called >>{tmp_path}/calls",
        'for word; do case "$word" in -DoutputDirectory=*) folder="${word#*=}";; esac; done',
        'mkdir -p "$folder" && : >"$folder/kafka_2.13-1.2.3.jar"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    store = tmp_path / "store"
    with ThreadPoolExecutor(2) as threads:
        folders = list(threads.map(lambda _: apache_jars.jars("1.2.3", store), range(2)))
    assert folders == [store / "1.2.3"] * 2
    assert (store / "1.2.3" / "kafka_2.13-1.2.3.jar").exists()
    assert (tmp_path / "calls").read_text() == "called\n"
    (store / "1.2.3" / "pom.sha256").write_text("of another pom")
    apache_jars.jars("1.2.3", store)
    assert (tmp_path / "calls").read_text() == "called\n" * 2


def test_a_wheel_that_is_not_installed_is_named_with_the_cure():
    with pytest.raises(ServerUnavailable, match=r"no_such_wheel/bin/\* is not installed .* pip install -r"):
        wheel_file("no_such_wheel", "bin/*")


# PostgreSQL


async def test_postgres_answers_at_its_url(postgres_url):
    assert await ask(postgres_url, "SELECT 6 * 7") == 42


async def test_postgres_keeps_its_data_from_one_run_to_the_next(open_directory):
    with running_postgres(open_directory / "restarted") as url:
        await ask(url, "CREATE TABLE links (id int)", "INSERT INTO links VALUES (42) RETURNING id")
    with running_postgres(open_directory / "restarted") as url:
        assert await ask(url, "SELECT id FROM links") == 42


async def ask(url, *statements):
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return result.scalar()
    finally:
        await engine.dispose()
