"""Journal → Redis: position and lines move together, so that nothing is lost and nothing is pushed twice."""

import asyncio
import os
import shutil

import pytest
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from collector.breaker import FAILURES, Breaker
from collector.durability import is_durable
from collector.lane import LOOK_AROUND_SECONDS
from collector.open_journal import OpenJournal
from collector.queue import CLICK_QUEUE, QueueKeys, open_redis, queue_id
from collector.shipment import QueueEnd, Shipment
from collector.shipper import TURN_EVENTS, Shipper
from collector.space import Space
from embedded.redis import running_redis
from process import tasks

KEYS = QueueKeys(CLICK_QUEUE)


@pytest.fixture
def journal(tmp_path):
    journal = OpenJournal(tmp_path / "journal", Space(10_000_000))
    yield journal
    journal.close()


@pytest.fixture
async def end(redis_server, redis):
    client = open_redis(redis_server.url)
    yield QueueEnd(client, KEYS)
    await client.aclose()


async def ship_all(shipment):
    while await shipment.step():
        pass


async def queued(redis):
    return await redis.lrange(CLICK_QUEUE, 0, -1)


async def until_shipped(shipper, lines, redis):
    """Have these written down, and wait until they are the last in Redis."""
    shipper.append(*lines)

    async def shipped():
        return (await queued(redis))[-len(lines) :] == lines

    await until(shipped)


def append(journal, count, begin=0):
    lines = [b"event %d" % number for number in range(begin, begin + count)]
    for line in lines:
        journal.append(line)
    return lines


async def test_lines_arrive_once_in_order_and_the_position_with_them(journal, end, redis):
    lines = append(journal, 10_000)
    await ship_all(Shipment(journal, end))
    assert await queued(redis) == lines
    assert int(await redis.get(KEYS.position(journal.id))) == journal.position


async def test_a_shipper_that_begins_again_ships_nothing_twice(journal, end, redis):
    lines = append(journal, 100)
    await ship_all(Shipment(journal, end))
    lines += append(journal, 100, begin=100)
    await ship_all(Shipment(journal, end))
    assert await queued(redis) == lines


async def test_a_script_that_arrives_late_pushes_nothing(journal, end, redis):
    """The reply is lost, the shipper asks and goes on; then the first script arrives at last."""
    append(journal, 5)
    late = Shipment(journal, end)
    late.position = 0
    await ship_all(Shipment(journal, end))
    assert await late.step()
    assert late.position == journal.position
    assert await redis.llen(CLICK_QUEUE) == 5


async def test_a_refused_push_moves_nothing(journal, end, redis):
    lines = append(journal, 5)
    await redis.set(CLICK_QUEUE, "not a list")
    shipment = Shipment(journal, end)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await shipment.step()
    assert await redis.get(KEYS.position(journal.id)) is None
    await redis.delete(CLICK_QUEUE)
    await ship_all(shipment)
    assert await queued(redis) == lines


async def test_a_redis_that_lost_everything_gets_what_the_journal_keeps(journal, end, redis):
    lines = append(journal, 50)
    shipment = Shipment(journal, end)
    await ship_all(shipment)
    await redis.flushall()
    lines += append(journal, 50, begin=50)
    await ship_all(shipment)
    assert await queued(redis) == lines
    assert await queue_id(redis, KEYS) == journal.queue_id, "the queue is the one it was"


def new_shipper(directory, *ends, most_bytes=10_000_000, keep_seconds=600, **options):
    return Shipper(ends, directory, Space(most_bytes), keep_seconds=keep_seconds, **options)


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_a_redis_that_was_emptied_and_named_anew_under_us_gets_what_the_journal_keeps(
    journal, end, redis
):
    lines = append(journal, 50)
    shipment = Shipment(journal, end)
    await ship_all(shipment)
    await redis.flushall()
    new = await queue_id(redis, KEYS)
    lines += append(journal, 50, begin=50)
    await ship_all(shipment)
    assert await queued(redis) == lines
    assert journal.queue_id == new


async def test_a_push_whose_reply_was_lost_is_counted_once(journal, end, redis):
    append(journal, 10)
    shipment = Shipment(journal, end)
    ship, lost = shipment._ship, RedisTimeoutError()

    async def lose_the_reply(keys, arguments):
        await ship(keys, arguments)
        raise lost

    shipment._ship = lose_the_reply
    with pytest.raises(RedisTimeoutError):
        await shipment.step()
    shipment._ship = ship
    await ship_all(shipment)
    assert (shipment.lines, await redis.llen(CLICK_QUEUE)) == (10, 10)


async def test_a_journal_that_never_pauses_still_forgets_what_is_shipped(tmp_path, end, redis):
    shipper = new_shipper(tmp_path / "journal", end, most_bytes=1_000_000)
    (lane,) = shipper.lanes
    for _ in range(40):
        append(lane.journal, 2_000)
        await lane.shipment.step()
        await lane._forget_shipped()
    assert lane.journal.position > 1_000_000 > lane.journal.size
    shipper.close()


async def test_a_journal_whose_folder_is_taken_away_begins_again(tmp_path, end, redis):
    shipper = new_shipper(tmp_path / "journal", end)
    (lane,) = shipper.lanes
    lines = append(lane.journal, 20)
    await ship_all(lane.shipment)
    shutil.rmtree(lane.journal.folder)
    old = lane.journal.id
    running = shipper.start()

    async def begun_again():
        return lane.journal.id != old

    await until(begun_again)
    shipper.append(b"after")

    async def arrived():
        return await queued(redis) == [*lines, b"after"]

    await until(arrived)
    assert (lane.shipment.went_back, lane.shipment.gone_bytes) == (0, 0)
    await tasks.end(running)


async def test_a_journal_of_ours_that_cannot_be_read_is_not_called_a_redis_that_is_away(tmp_path, end):
    shipper = new_shipper(tmp_path / "journal", end)
    (lane,) = shipper.lanes
    append(lane.journal, 60_000)  # more than is kept in memory
    (segment,) = lane.journal.folder.glob("*.segment")
    segment.rename(lane.journal.folder / "aside")
    segment.mkdir()
    running = shipper.start()

    async def told():
        return lane.trouble == "gets nothing: its journal cannot be read"

    await until(told)
    segment.rmdir()
    (lane.journal.folder / "aside").rename(segment)

    async def shipped():
        return lane.unshipped_bytes == 0 and lane.trouble is None

    await until(shipped)
    await tasks.end(running)


async def test_a_folder_that_cannot_be_made_again_is_tried_until_it_can(tmp_path, end, redis):
    directory = tmp_path / "journal"
    shipper = new_shipper(directory, end)
    (lane,) = shipper.lanes
    old = lane.journal.id
    running = shipper.start()
    await until_shipped(shipper, [b"first"], redis)
    shutil.rmtree(directory)
    directory.write_text("no folder")
    await asyncio.sleep(2 * LOOK_AROUND_SECONDS)
    with pytest.raises(OSError, match="journal"):
        shipper.probe()  # so /readyz says
    await until_shipped(shipper, [b"from memory"], redis)
    directory.unlink()

    async def begun_again():
        return lane.journal.id != old

    await until(begun_again)
    await until_shipped(shipper, [b"after"], redis)
    assert await queued(redis) == [b"first", b"from memory", b"after"]
    assert (lane.shipment.went_back, lane.shipment.gone_bytes) == (0, 0)
    await tasks.end(running)


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_what_is_in_memory_outlives_its_folder_if_it_is_known_where_redis_stands(
    tmp_path, end, redis, in_doubt
):
    shipper = new_shipper(tmp_path / "journal", end)
    (lane,) = shipper.lanes
    lines = append(lane.journal, 20)
    await ship_all(lane.shipment)
    shipped = lane.journal.position
    more = append(lane.journal, 10, begin=20)
    unshipped = lane.journal.position - shipped
    if in_doubt:
        lane.shipment.look_again()
    shutil.rmtree(lane.journal.folder)
    lane._mind_folder()
    assert lane.shipment.gone_bytes == (unshipped if in_doubt else 0)
    last = append(lane.journal, 1, begin=30)
    await ship_all(lane.shipment)
    assert await queued(redis) == [*lines, *([] if in_doubt else more), *last]
    assert (lane.shipment.went_back, lane.unshipped_bytes) == (0, 0)
    shipper.close()


async def test_redis_that_is_away_is_an_error_within_its_timeout_and_nothing_is_lost(tmp_path, journal):
    lines = append(journal, 3)
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    async with asyncio.timeout(5):
        with pytest.raises((RedisError, OSError)):
            await Shipment(journal, nobody).step()
    assert journal.read(0, most_lines=10, most_bytes=1000, until=journal.position).lines == lines
    await nobody.redis.aclose()


async def test_an_append_is_in_redis_soon_after(tmp_path, end, redis):
    shipper = new_shipper(tmp_path / "journal", end)
    running = shipper.start()
    shipper.append(b"hello")

    async def arrived():
        return await queued(redis) == [b"hello"]

    await until(arrived)
    await tasks.end(running)


async def test_queues_take_events_in_turn_and_one_whose_redis_is_away_loses_its_turn(tmp_path, redis, end):
    second = QueueEnd(end.redis, QueueKeys("click_queue:1"))
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    shipper = new_shipper(tmp_path / "journal", end, second, nobody)
    running = shipper.start()
    (*_, away) = shipper.lanes
    away.append(b"waits")

    async def open_circuit():
        return away.breaker.is_open

    await until(open_circuit)
    lines = [b"event %d" % number for number in range(4 * TURN_EVENTS)]
    for line in lines:
        shipper.append(line)

    async def arrived():
        return await redis.llen(CLICK_QUEUE) == await redis.llen("click_queue:1") == 2 * TURN_EVENTS

    await until(arrived)
    assert sorted([*await queued(redis), *await redis.lrange("click_queue:1", 0, -1)]) == sorted(lines)
    await tasks.end(running)
    await nobody.redis.aclose()


async def test_events_wait_in_turn_while_every_redis_is_away(tmp_path):
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    shipper = new_shipper(tmp_path / "journal", nobody, nobody)
    for lane in shipper.lanes:
        for _ in range(FAILURES):
            lane.breaker.failed()
    for _ in range(10):
        shipper.append(b"waits")
    assert sum(lane.journal.position for lane in shipper.lanes) == 10 * (8 + len(b"waits"))
    shipper.close()
    await nobody.redis.aclose()


def test_a_circuit_opens_after_five_failures_and_rests_longer_each_time():
    breaker = Breaker()
    assert [breaker.failed() for _ in range(13)] == [
        *(0.1, 0.2, 0.4, 0.8),
        *(2, 4, 8, 16, 32, 64, 128, 128, 128),
    ]
    assert breaker.is_open
    breaker.succeeded()
    assert not breaker.failing
    assert Breaker(2.0).failed() == 0.1


@pytest.mark.parametrize("durability", ["fsync", "redis"])
async def test_an_event_is_safe_before_its_visitor_is_answered(tmp_path, end, redis, durability, monkeypatch):
    shipper = new_shipper(tmp_path / "journal", end, durability=durability)
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), fsync(file)))
    running = shipper.start()
    await shipper.append(b"first").safe()  # the queue gets its id meanwhile
    synced.clear()
    waiting = [asyncio.create_task(shipper.append(b"event %d" % number).safe()) for number in range(50)]
    await asyncio.gather(*waiting)
    assert 1 <= len(synced) < 20, "one fsync serves many"
    if durability == "redis":
        assert len(await queued(redis)) == 51
    assert shipper.lanes[0].unsafe == 0
    await tasks.end(running)


async def test_a_visitor_does_not_wait_for_a_redis_that_is_away_and_that_is_counted(tmp_path):
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    shipper = new_shipper(tmp_path / "journal", nobody, durability="redis")
    running = shipper.start()
    async with asyncio.timeout(5):
        await shipper.append(b"event").safe()
    assert shipper.lanes[0].unsafe == 1
    await tasks.end(running)
    await nobody.redis.aclose()


@pytest.mark.parametrize("appendfsync", ["always", "everysec", None])
async def test_a_redis_tells_that_it_is_durable_and_one_without_a_log_cannot(tmp_path, appendfsync):
    options = ("--appendonly", "no") if appendfsync is None else ()
    with running_redis(tmp_path, appendfsync=appendfsync or "everysec", extra=options) as server:
        client = open_redis(server.url)
        async with asyncio.timeout(30):
            while not await is_durable(client, "mark"):
                await asyncio.sleep(0.01)
        await client.aclose()


async def test_a_segment_stays_as_long_as_redis_could_still_forget_it(tmp_path, end, monkeypatch):
    shipper = new_shipper(tmp_path / "journal", end, most_bytes=1_000_000)
    (lane,) = shipper.lanes
    append(lane.journal, 30_000)
    while await lane.shipment.step():
        pass

    async def not_yet(_redis, _mark):
        return False

    with monkeypatch.context() as patched:
        patched.setattr("collector.shipment.is_durable", not_yet)
        await lane._forget_shipped()
        assert lane.journal.segments()[0][0] == 0, "shipped, crowded, and still there"

    async def forgotten():
        await lane._forget_shipped()
        return lane.journal.segments()[0][0] > 0

    await until(forgotten)
    shipper.close()


async def test_a_redis_that_went_back_is_counted_and_gets_what_the_journal_keeps(journal, end, redis):
    lines = append(journal, 50)
    shipment = Shipment(journal, end)
    await ship_all(shipment)
    await redis.ltrim(CLICK_QUEUE, 0, 19)
    await redis.set(KEYS.position(journal.id), 20 * 8 + sum(len(line) for line in lines[:20]))
    shipment.look_again()
    await ship_all(shipment)
    assert await queued(redis) == lines
    assert shipment.went_back == 1
    assert shipment.gone_bytes == 0


async def test_what_neither_redis_nor_the_journal_has_any_more_is_counted_once(tmp_path, end, redis):
    journal = OpenJournal(tmp_path / "journal", Space(8000))
    lines = append(journal, 200)
    shipment = Shipment(journal, end)
    await ship_all(shipment)
    journal.forget(path for begin, path in journal.segments() if begin < 2000)
    kept_from, _ = journal.segments()[0]
    await redis.flushall()
    shipment.look_again()
    await ship_all(shipment)
    shipment.look_again()
    await ship_all(shipment)
    assert shipment.gone_bytes == kept_from >= 2000
    found = await queued(redis)
    assert 0 < len(found) < 200
    assert found == lines[-len(found) :]
    journal.close()
