"""Journal → Redis: position and lines move together, so that nothing is lost and nothing is pushed twice."""

import asyncio
import shutil

import pytest
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from collector.journal import OpenJournal, journals_left_behind
from collector.queue import CLICK_QUEUE, QueueKeys, open_redis, queue_id
from collector.shipper import QueueEnd, Shipment, Shipper
from process import tasks

KEYS = QueueKeys(CLICK_QUEUE)


@pytest.fixture
def journal(tmp_path):
    journal = OpenJournal(tmp_path / "journal", max_bytes=10_000_000)
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


async def test_a_journal_left_behind_is_never_shipped_to_another_queue(tmp_path, journal, end, redis):
    append(journal, 1)
    journal.bind("00000000-0000-4000-8000-000000000000")
    journal.close()
    journal.release()
    await queue_id(redis, KEYS)
    directory = tmp_path / "journal"
    shipper = Shipper(OpenJournal(directory, 1_000_000), end, [end], directory, keep_seconds=600)
    await shipper._adopt()
    assert await queued(redis) == []
    assert [found.id for found in journals_left_behind(directory)] == [journal.id], (
        "it is there for who can ship it"
    )


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


async def test_journals_left_behind_are_shipped_also_if_redis_was_away_at_first(tmp_path, end, redis):
    directory = tmp_path / "journal"
    dead = OpenJournal(directory, max_bytes=1_000_000)
    lines = append(dead, 20)
    dead.bind(await queue_id(redis, KEYS))
    dead.close()
    dead.release()
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    shipper = Shipper(OpenJournal(directory, 1_000_000), nobody, [nobody], directory, keep_seconds=600)
    with pytest.raises((RedisError, OSError)):
        await shipper._adopt()
    shipper._ends = [end]
    running = shipper.start()
    async with asyncio.timeout(10):
        while await queued(redis) != lines:
            await asyncio.sleep(0.01)
    await tasks.end(running)
    await nobody.redis.aclose()


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
    directory = tmp_path / "journal"
    journal = OpenJournal(directory, max_bytes=1_000_000)
    shipper = Shipper(journal, end, [end], directory, keep_seconds=600)
    for _ in range(40):
        append(journal, 2_000)
        await shipper._own.step()
        shipper._forget_shipped()
    assert journal.position > 1_000_000 > journal.size
    await tasks.end(shipper.start())


async def test_a_journal_whose_folder_is_taken_away_begins_again(tmp_path, end, redis):
    directory = tmp_path / "journal"
    journal = OpenJournal(directory, max_bytes=1_000_000)
    shipper = Shipper(journal, end, [end], directory, keep_seconds=600)
    shutil.rmtree(journal.folder)
    old = journal.id
    running = shipper.start()
    async with asyncio.timeout(10):
        while journal.id == old:
            await asyncio.sleep(0.01)
    journal.append(b"after")
    shipper.wake()
    async with asyncio.timeout(10):
        while await queued(redis) != [b"after"]:
            await asyncio.sleep(0.01)
    await tasks.end(running)


async def test_redis_that_is_away_is_an_error_within_its_timeout_and_nothing_is_lost(tmp_path, journal):
    lines = append(journal, 3)
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    async with asyncio.timeout(5):
        with pytest.raises((RedisError, OSError)):
            await Shipment(journal, nobody).step()
    assert journal.read(0, most_lines=10, most_bytes=1000, until=journal.position).lines == lines
    await nobody.redis.aclose()


async def test_what_a_process_left_behind_is_shipped_by_the_next_one(tmp_path, end, redis):
    directory = tmp_path / "journal"
    dead = OpenJournal(directory, max_bytes=1_000_000)
    lines = append(dead, 20)
    dead.close()
    dead.release()
    journal = OpenJournal(directory, max_bytes=1_000_000)
    shipper = Shipper(journal, end, [end], directory, keep_seconds=0)
    running = shipper.start()
    async with asyncio.timeout(10):
        while shipper.adopted < 20 or dead.folder.exists():
            await asyncio.sleep(0.01)
    await tasks.end(running)
    assert await queued(redis) == lines
    assert await redis.get(KEYS.position(dead.id)) is None
    assert list(journals_left_behind(directory)) == []


async def test_an_append_is_in_redis_soon_after(tmp_path, end, redis):
    journal = OpenJournal(tmp_path / "journal", max_bytes=1_000_000)
    shipper = Shipper(journal, end, [end], tmp_path / "journal", keep_seconds=600)
    running = shipper.start()
    journal.append(b"hello")
    shipper.wake()
    async with asyncio.timeout(5):
        while await queued(redis) != [b"hello"]:
            await asyncio.sleep(0.001)
    await tasks.end(running)
