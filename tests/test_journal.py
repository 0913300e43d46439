"""An event is on disk before the visitor is answered, and read back whole, in order, whatever happened between."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from collector.journal import journal_folders, journals_left_behind, sweep
from collector.open_journal import JournalFullError, OpenJournal
from collector.space import Space

MEGABYTE = 1024 * 1024


@pytest.fixture
def journal(tmp_path):
    journal = OpenJournal(tmp_path / "journal", Space(MEGABYTE))
    yield journal
    journal.close()


def read_all(journal, until=None, most_lines=100, most_bytes=MEGABYTE):
    lines, torn, position = [], 0, 0
    while (
        chunk := journal.read(position, most_lines=most_lines, most_bytes=most_bytes, until=until)
    ).end != position:
        lines += chunk.lines
        torn += chunk.torn
        position = chunk.end
    return lines, torn, position


def left_behind(journal):
    """Take the journal as another process finds it when its writer is gone."""
    journal.close()
    journal.release()
    (found,) = journals_left_behind(journal.folder.parent)
    return found


def test_lines_are_read_back_in_order_over_segments_and_chunks(journal):
    lines = [b"%d %b" % (number, b"x" * (number % 300)) for number in range(5000)]
    for line in lines:
        journal.append(line)
    assert len(journal.segments()) > 1
    assert read_all(journal, until=journal.position) == (lines, 0, journal.position)
    assert read_all(journal, until=journal.position, most_lines=7, most_bytes=50) == (
        lines,
        0,
        journal.position,
    )
    assert read_all(left_behind(journal)) == (lines, 0, journal.position)


def test_a_record_that_is_still_being_written_is_not_read(journal):
    journal.append(b"whole")
    assert read_all(journal, until=journal.position)[0] == [b"whole"]
    position = journal.position
    journal.append(b"later")
    assert read_all(journal, until=position)[0] == [b"whole"]


def test_a_torn_tail_is_passed_over_and_counted(journal):
    for line in (b"one", b"two", b"three"):
        journal.append(line)
    _, path = journal.segments()[-1]
    os.truncate(path, path.stat().st_size - 2)
    lines, torn, _ = read_all(left_behind(journal))
    assert (lines, torn) == ([b"one", b"two"], 8 + len(b"three") - 2)


@pytest.mark.parametrize("lost", [1, 8, 40])
def test_a_file_that_lost_what_was_shipped_from_memory_has_nothing_more(journal, lost):
    for line in (b"one", b"two", b"three"):
        journal.append(line)
    shipped = journal.position
    _, path = journal.segments()[-1]
    os.truncate(path, path.stat().st_size - lost)
    found = left_behind(journal)
    chunk = found.read(shipped, most_lines=10, most_bytes=MEGABYTE)
    assert (chunk.lines, chunk.begin, chunk.end, chunk.torn) == ([], shipped, shipped, 0)


def test_a_tail_of_zeros_is_torn_and_no_event(journal):
    journal.append(b"one")
    _, path = journal.segments()[-1]
    with path.open("ab") as file:
        file.write(bytes(64))
    lines, torn, _ = read_all(left_behind(journal))
    assert (lines, torn) == ([b"one"], 64)


def test_a_strange_file_in_the_folder_is_none_of_ours(journal):
    journal.append(b"one")
    (journal.folder / "x.segment").write_bytes(b"?")
    assert read_all(left_behind(journal))[0] == [b"one"]


def test_journals_left_behind_count_against_the_same_limit(journal):
    journal._space.adopted = MEGABYTE - 100
    with pytest.raises(JournalFullError):
        journal.append(b"x" * 200)


def test_a_record_that_rotted_is_passed_over_and_its_neighbours_are_not(journal):
    for line in (b"one", b"two", b"three"):
        journal.append(line)
    _, path = journal.segments()[-1]
    path.write_bytes(path.read_bytes().replace(b"two", b"twa"))
    lines, torn, _ = read_all(left_behind(journal))
    assert (lines, torn) == ([b"one", b"three"], 8 + 3)


def test_a_full_journal_says_so_and_takes_events_again_when_shipped_ones_are_gone(journal):
    line = b"x" * 1000
    with pytest.raises(JournalFullError):
        for _ in range(2000):
            journal.append(line)
    full_at = journal.position
    assert journal.size <= MEGABYTE
    journal.forget(journal.forgettable(full_at, older_than=0))
    journal.append(line)
    assert read_all(journal, until=journal.position)[2] == journal.position


def test_shipped_segments_stay_as_long_as_redis_may_go_back(journal):
    for _ in range(300):
        journal.append(b"x" * 1000)
    before = journal.segments()
    assert journal.forgettable(journal.position, older_than=time.time() - 600) == []
    old = journal.forgettable(journal.position, older_than=time.time() + 1)
    assert old == [path for _, path in before[:-1]]
    journal.forget(old)
    assert journal.segments() == before[-1:], "the segment still written to stays"


def test_a_disk_that_refuses_seals_the_segment_and_the_next_append_begins_another(journal):
    journal.append(b"before")
    os.close(journal._segment)
    read_only = os.open(journal.segments()[-1][1], os.O_RDONLY)
    journal._segment = read_only
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.append(b"lost")
    journal.append(b"after")
    assert len(journal.segments()) == 2
    assert read_all(journal, until=journal.position)[0] == [b"before", b"after"]


@contextmanager
def files_of_at_most(size):
    """Have the system write files no longer than this: the last write falls short, and the next is refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [4, 15, 25])
def test_of_lines_that_fall_short_none_is_there(journal, room):
    journal.append(b"before")
    with files_of_at_most(journal.size + room), pytest.raises(OSError, match=f"only {room} of 54 bytes"):
        journal.append(b"lost", b"x" * 24, b"lost, too"[:2])
    journal.append(b"after", b"that")
    assert journal.size == journal.bytes_on_disk() == journal._space.own
    assert read_all(journal, until=journal.position) == ([b"before", b"after", b"that"], 0, journal.position)
    assert read_all(left_behind(journal)) == ([b"before", b"after", b"that"], 0, journal.position)


def test_a_journal_whose_first_lines_are_refused_takes_the_next(journal):
    with files_of_at_most(60):
        for _ in range(3):
            with pytest.raises(OSError, match="only"):
                journal.append(b"lost")
        assert (journal.size, journal.bytes_on_disk()) == (0, 0)
    journal.append(b"after")
    assert read_all(left_behind(journal))[0] == [b"after"]


def test_what_was_appended_last_is_read_from_memory_and_nothing_is_kept_twice(journal):
    journal.append(b"one", b"two")
    journal.append(b"three")
    _, path = journal.segments()[-1]
    path.write_bytes(b"")  # nobody looks there
    assert journal.read(0, most_lines=2, most_bytes=MEGABYTE).lines == [b"one", b"two"]
    assert read_all(journal, until=journal.position)[0] == [], "it is read from the file again"


def test_a_reader_who_falls_behind_reads_the_file_and_catches_up(journal):
    journal._space.most_bytes = 8 * MEGABYTE
    lines = [b"%d" % number + bytes(1000) for number in range(3000)]
    found, position = [], 0
    for number, line in enumerate(lines):
        journal.append(line)
        if number % 1000 < 3 or number == 2999:
            while (
                chunk := journal.read(position, most_lines=400, most_bytes=MEGABYTE, until=journal.position)
            ).lines:
                found += chunk.lines
                position = chunk.end
    assert found == lines


def test_a_segment_is_opened_also_when_strangers_hold_all_open_files(journal):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        lines = [b"%d" % number + bytes(1000) for number in range(300)]
        for line in lines:
            journal.append(line)
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(journal.segments()) > 1
    assert read_all(journal, until=journal.position)[0] == lines


def test_a_journal_whose_removal_is_cut_short_is_none_any_more(journal, monkeypatch):
    journal.append(b"shipped")
    found = left_behind(journal)
    with monkeypatch.context() as cut_short:
        cut_short.setattr(shutil, "rmtree", lambda *_, **__: None)
        found.remove()
    directory = journal.folder.parent
    assert journal_folders(directory) == []
    (rest,) = directory.iterdir()
    sweep(directory)
    assert not rest.exists()


def test_a_journal_belongs_to_one_process_at_a_time(journal):
    assert list(journals_left_behind(journal.folder.parent)) == []
    found = left_behind(journal)
    assert found.id == journal.id
    assert list(journals_left_behind(journal.folder.parent)) == []
    found.remove()
    assert list(journals_left_behind(journal.folder.parent)) == []
    assert not found.folder.exists()


def test_the_queue_a_journal_is_bound_to_is_kept(journal):
    assert journal.queue_id is None
    journal.bind("8d3c")
    assert left_behind(journal).queue_id == "8d3c"


WRITE_UNTIL_KILLED = """
import sys, pathlib
from collector.open_journal import OpenJournal
from collector.space import Space
journal = OpenJournal(pathlib.Path(sys.argv[1]), Space(100_000_000))
number = 0
while True:
    journal.append(b"event %d" % number)
    print(number, flush=True)
    number += 1
"""


def test_what_was_appended_before_kill_9_is_there(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, tmp_path / "journal"], stdout=subprocess.PIPE, text=True
    ) as writer:
        for _ in range(1000):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
    (found,) = journals_left_behind(tmp_path / "journal")
    lines, torn, _ = read_all(found)
    assert lines[: acknowledged + 1] == [b"event %d" % number for number in range(acknowledged + 1)]
    assert torn == 0
    found.release()
