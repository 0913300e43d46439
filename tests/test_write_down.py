"""What the answers of a turn rely on is in the journal, event by event, or counted as dropped."""

import time
from dataclasses import dataclass

import pytest
from test_journal import files_of_at_most, read_all

from collector.app import open_collector
from collector.event import CLICK_PATH, CLICKS, ORPHANS, Event
from collector.settings import CollectorSettings
from embedded.ports import free_port
from process.board import Board
from process.metrics import BUCKETS_SECONDS
from process.settings import read_settings

MEGABYTE = 1024 * 1024


@pytest.fixture
async def collector(tmp_path):
    """Give a collector whose Redis is away, so that all it has is in its journal."""
    environ = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": str(tmp_path / "journal"),
        "JOURNAL_MAX_BYTES": str(MEGABYTE),
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    async with open_collector(read_settings(CollectorSettings, environ), Board(1)) as opened:
        yield opened


def event(number, size=10):
    return Event("203.0.113.42", 1769860800, CLICKS, CLICK_PATH, b"click=%d" % number, b"x" * size)


@dataclass
class Seen:
    """Something that has its event ready."""

    ready: Event

    def event(self):
        return self.ready


class Fault:
    """Something that has none, by a fault of ours."""

    def event(self):
        raise ArithmeticError


def written_events(collector):
    (lane,) = collector.shipper.lanes
    lines, torn, _ = read_all(lane.journal, until=lane.journal.position, most_lines=10_000)
    assert torn == 0
    return [Event.decode(line, {CLICKS, ORPHANS}) for line in lines]


def written(collector):
    return [event.params for event in written_events(collector)]


async def test_events_of_a_turn_are_written_in_order_and_only_when_it_ends(collector):
    for number in range(50):
        collector.note(Seen(event(number)))
    assert written(collector) == []
    collector.end_turn(0.0)
    collector.end_turn(0.0)
    assert written(collector) == [b"click=%d" % number for number in range(50)]
    assert (collector.recorded.total(), collector.dropped.total()) == (50, 0)


async def test_what_gives_no_event_is_counted_and_costs_no_other(collector):
    for seen in (Seen(event(1)), Fault(), Seen(event(2)), Fault()):
        collector.note(seen)
    collector.end_turn(0.0)
    assert written(collector) == [b"click=1", b"click=2"]
    assert (collector.recorded, collector.dropped) == ({CLICKS: 2}, {"fault": 2})


async def test_answers_of_a_turn_are_counted_by_route_and_status_with_the_time_since_it_began(collector):
    for status in (b"307", b"302", b"307"):
        collector.note_answer("click", status)
    collector.end_turn(time.perf_counter() - 0.7)
    collector.end_turn(time.perf_counter())
    assert collector.answered == {("click", 307): 2, ("click", 302): 1}
    durations = collector.durations["click"]
    assert [sum(durations.counts), durations.counts[BUCKETS_SECONDS.index(1.0)]] == [3, 3]
    assert 2.1 <= durations.total_seconds < 3


async def test_where_not_all_events_of_a_turn_fit_those_that_do_are_written_and_the_others_counted(collector):
    for number in range(300):
        collector.note(Seen(event(number, size=9_000)))
    collector.end_turn(0.0)
    found = written(collector)
    assert found == [b"click=%d" % number for number in range(len(found))]
    assert 50 < len(found) < 150
    assert collector.recorded == {CLICKS: len(found)}
    assert collector.dropped == {"journal_full": 300 - len(found)}


async def test_of_a_turn_that_a_full_disk_cuts_short_no_event_is_written_twice(collector):
    collector.note(Seen(event(0)))
    collector.end_turn(0.0)
    for number in range(1, 40):
        collector.note(Seen(event(number, size=200)))
    (lane,) = collector.shipper.lanes
    with files_of_at_most(lane.journal.size + 2_000):
        collector.end_turn(
            0.0
        )  # what would make a segment too long is refused, and what follows begins another
    found, everything = written(collector), [b"click=%d" % number for number in range(40)]
    assert found == [params for params in everything if params in found]
    assert 30 < len(found) < 40
    assert collector.recorded == {CLICKS: len(found)}
    assert collector.dropped == {"journal_write": 40 - len(found)}
