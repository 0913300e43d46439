"""Journals of processes that are gone: each arrives once, and what is wrong with one keeps no other waiting."""

import asyncio
import shutil

import pytest
from structlog.testing import capture_logs
from test_shipper import KEYS, append, new_shipper, queued, until

from collector.adoption import LOOK_SECONDS
from collector.journal import journal_folders, journals_left_behind
from collector.open_journal import OpenJournal
from collector.queue import open_redis, queue_id
from collector.shipment import QueueEnd
from collector.space import Space
from process import tasks

NO_QUEUE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def end(redis_server, redis):
    client = open_redis(redis_server.url)
    yield QueueEnd(client, KEYS)
    await client.aclose()


def left_behind(tmp_path, count, begin=0, bound_to=None):
    """Give a journal whose process is gone, and its lines."""
    left = OpenJournal(tmp_path, Space(1_000_000))
    lines = append(left, count, begin)
    if bound_to is not None:
        left.bind(bound_to)
    left.close()
    left.release()
    return left, lines


async def test_a_journal_left_behind_is_never_shipped_to_another_queue(tmp_path, end, redis):
    left, _ = left_behind(tmp_path, 1, bound_to=NO_QUEUE)
    adoption = new_shipper(tmp_path, end).adoption
    adoption._adopt(left.folder, await adoption._ends_by_id())
    assert await queued(redis) == []
    assert [found.id for found in journals_left_behind(tmp_path)] == [left.id], (
        "it is there for who can ship it"
    )


async def test_a_redis_that_is_away_keeps_no_other_ones_journals_waiting(tmp_path, end, redis):
    nobody = QueueEnd(open_redis("redis://127.0.0.1:1/0"), KEYS)
    of_nobody, _ = left_behind(tmp_path, 3, bound_to=NO_QUEUE)
    _, lines = left_behind(tmp_path, 20, bound_to=await queue_id(redis, KEYS))
    shipper = new_shipper(tmp_path, nobody, end)
    running = shipper.start()

    async def arrived():
        return await queued(redis) == lines

    await until(arrived)
    await tasks.end(running)
    assert [found.id for found in journals_left_behind(tmp_path)] == [of_nobody.id]
    await nobody.redis.aclose()


async def test_what_a_process_left_behind_is_shipped_by_the_next_one(tmp_path, end, redis):
    dead, lines = left_behind(tmp_path, 20)
    shipper = new_shipper(tmp_path, end, keep_seconds=0)
    running = shipper.start()

    async def adopted():
        return shipper.adoption.lines == 20 and not dead.folder.exists()

    await until(adopted)
    await tasks.end(running)
    assert await queued(redis) == lines
    assert await redis.get(KEYS.position(dead.id)) is None
    assert list(journals_left_behind(tmp_path)) == []


async def test_a_journal_that_cannot_be_read_is_told_and_keeps_no_other_waiting(tmp_path, end, redis):
    one, lines_of_one = left_behind(tmp_path, 3, bound_to=await queue_id(redis, KEYS))
    two, lines_of_two = left_behind(tmp_path, 3, begin=3)
    _, others = left_behind(tmp_path, 3, begin=6)
    (one.folder / "queue").rename(one.folder / "aside")
    (one.folder / "queue").mkdir()
    (segment,) = two.folder.glob("*.segment")
    segment.rename(two.folder / "aside")
    segment.mkdir()
    shipper = new_shipper(tmp_path, end)
    running = shipper.start()

    async def told():
        return shipper.adoption.unreadable.keys() == {one.id, two.id} and await queued(redis) == others

    with capture_logs() as logs:
        await until(told)
        await asyncio.sleep(2.5 * LOOK_SECONDS)
    assert [entry["event"] for entry in logs].count("journal_unreadable") == 2, "each is said once"

    (one.folder / "queue").rmdir()
    (one.folder / "aside").rename(one.folder / "queue")
    segment.rmdir()
    (two.folder / "aside").rename(segment)

    async def mended():
        return not shipper.adoption.unreadable

    await until(mended)
    await tasks.end(running)
    assert sorted(await queued(redis)) == sorted([*lines_of_one, *lines_of_two, *others])


async def test_a_journal_left_behind_that_is_taken_away_is_told_and_costs_no_other(tmp_path, end, redis):
    gone, lines = left_behind(tmp_path, 3)
    shipper = new_shipper(tmp_path, end)
    running = shipper.start()

    async def arrived():
        return await queued(redis) == lines

    await until(arrived)
    shutil.rmtree(gone.folder)
    _, others = left_behind(tmp_path, 3, begin=3)
    lines += others
    with capture_logs() as logs:
        await until(arrived)

        async def told():
            return any(entry["event"] == "journal_taken_away" for entry in logs)

        await until(told)
    await tasks.end(running)
    assert [entry["journal"] for entry in logs if entry["event"] == "journal_taken_away"] == [gone.id]
    assert not shipper.adoption.unreadable


async def test_a_journal_that_lost_the_id_of_its_queue_waits_for_a_person(tmp_path, end):
    lost, _ = left_behind(tmp_path, 3, bound_to="")
    adoption = new_shipper(tmp_path, end).adoption
    adoption._adopt(lost.folder, await adoption._ends_by_id())
    assert adoption.stranded == {lost.id: ""}


def test_a_folder_that_is_no_journal_is_left_alone(tmp_path):
    left, _ = left_behind(tmp_path, 3)
    (tmp_path / "lost+found").mkdir()
    assert journal_folders(tmp_path) == [left.folder]


async def test_a_journal_whose_queue_is_damaged_waits_for_a_person(tmp_path, end):
    damaged, _ = left_behind(tmp_path, 3, bound_to=NO_QUEUE)
    (damaged.folder / "queue").write_bytes(b"\xff\xfe")
    adoption = new_shipper(tmp_path, end).adoption
    adoption._adopt(damaged.folder, await adoption._ends_by_id())
    assert list(adoption.stranded) == [damaged.id]


async def test_what_nobody_thought_of_with_one_journal_costs_no_other(tmp_path, end, redis):
    strange, _ = left_behind(tmp_path, 3)
    _, others = left_behind(tmp_path, 3, begin=3)
    await redis.set(KEYS.position(strange.id), "no number")
    shipper = new_shipper(tmp_path, end)
    running = shipper.start()

    async def told():
        return shipper.adoption.unreadable.keys() == {strange.id} and await queued(redis) == others

    with capture_logs() as logs:
        await until(told)
    await tasks.end(running)
    (said,) = [entry for entry in logs if entry["event"] == "journal_unreadable"]
    assert isinstance(said["exc_info"], ValueError)


async def test_what_waits_for_a_redis_that_takes_nothing_counts_against_the_limit(tmp_path, end, redis):
    left, _ = left_behind(tmp_path, 100)
    shipper = new_shipper(tmp_path, end)
    await redis.set("click_queue", "no list")
    running = shipper.start()

    async def counted():
        return shipper.adoption._space.adopted == left.bytes_on_disk()

    await until(counted)
    await asyncio.sleep(2 * LOOK_SECONDS)
    assert await counted()
    await tasks.end(running)


async def test_so_many_are_adopted_at_once_and_all_are_shipped(tmp_path, end, redis, monkeypatch):
    monkeypatch.setattr("collector.adoption.MOST_ADOPTED", 3)
    lines = [line for begin in range(10) for line in left_behind(tmp_path, 1, begin)[1]]
    shipper = new_shipper(tmp_path, end, keep_seconds=0)
    running = shipper.start()
    most = 0

    async def arrived():
        nonlocal most
        most = max(most, len(shipper.adoption._adopted))
        return sorted(await queued(redis)) == sorted(lines)

    await until(arrived)
    await tasks.end(running)
    assert most <= 3
