"""The journal: an event is in a file of this process before the visitor is answered.

One folder a journal, `JOURNAL_DIR/<uuid>/`, holding

    lock                        locked by the process that writes or ships it, for as long as it lives
    queue                       the id of the queue it ships to, written before the first attempt
    <position>.segment          a header line, then records (segment.py)

A position counts the bytes of records since the journal began; a segment is named by the position it begins
at. A journal is written by the process that created it (open_journal.py) and by no other; journals found are only
shipped.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Final

from collector.segment import Chunk, read_segment

SUFFIX: Final = ".segment"

_REMOVED: Final = ".removed-"
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Journal:
    """A journal that this process holds the lock of: its own, or one it found."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.id = folder.name
        self._lock = lock
        self._queue_id: str | None = None
        """What the file says, once it was read."""

    @property
    def queue_id(self) -> str | None:
        """The queue this journal ships to, or None as long as no attempt was made."""
        file = self.folder / "queue"
        if self._queue_id is None and file.exists():
            self._queue_id = file.read_text("ascii", "replace")  # what is damaged is no queue's id
        return self._queue_id

    def bind(self, queue_id: str) -> None:
        """Write down, for good, which queue this journal ships to."""
        written = self.folder / "queue.tmp"
        with written.open("w") as file:
            file.write(queue_id)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the name without the id
        written.rename(self.folder / "queue")
        self._queue_id = queue_id

    def unbind(self) -> None:
        """Let it be shipped to any queue, from its beginning: what its old one handed on is then doubled."""
        (self.folder / "queue").unlink(missing_ok=True)
        self._queue_id = None

    def segments(self) -> list[tuple[int, Path]]:
        """Give the segments there are, by the position each begins at."""
        found = self.folder.glob(f"*{SUFFIX}")
        return sorted((int(path.stem), path) for path in found if path.stem.isdecimal())

    def read(self, position: int, *, most_lines: int, most_bytes: int, until: int | None = None) -> Chunk:
        """Read whole records from `position` on, not past `until`; an empty chunk at the end of the journal.

        A position in a segment that is gone goes on at the first one that is there.
        """
        segments = self.segments()
        for number, (begin, path) in enumerate(segments):
            following = segments[number + 1][0] if number + 1 < len(segments) else None
            if following is not None and following <= position:
                continue
            sealed = following is not None or until is None
            limit = following if following is not None else until
            chunk = read_segment(
                path,
                begin,
                max(position, begin),
                limit,
                most_lines=most_lines,
                most_bytes=most_bytes,
                sealed=sealed,
            )
            if chunk.lines or chunk.torn:
                return chunk
        return Chunk([], position, position)

    def forgettable(self, position: int, *, older_than: float) -> list[Path]:
        """Give the segments that end at or before `position` and were written before the Unix time `older_than`."""
        found = []
        for (_, path), (following, _) in pairwise(self.segments()):
            if following > position or path.stat().st_mtime >= older_than:
                break
            found.append(path)
        return found

    def bytes_on_disk(self) -> int:
        """Count the bytes of its segments."""
        return sum(path.stat().st_size for _, path in self.segments())

    def last_written(self) -> float:
        """Give the Unix time of the last append."""
        segments = self.segments()
        return segments[-1][1].stat().st_mtime if segments else 0.0

    def remove(self) -> None:
        """Remove the journal and let go of its lock; raises OSError, and it is as it was."""
        # In one step it is none any more: who found half of one would ship it, and to any queue.
        removed = self.folder.rename(self.folder.with_name(f"{_REMOVED}{self.id}"))
        self.release()
        shutil.rmtree(removed, ignore_errors=True)

    def release(self) -> None:
        """Let another process take this journal up."""
        os.close(self._lock)


def sweep(directory: Path) -> None:
    """Remove what is left of journals that were being removed when their process ended."""
    for folder in directory.glob(f"{_REMOVED}*"):
        shutil.rmtree(folder, ignore_errors=True)


def journal_folders(directory: Path) -> list[Path]:
    """Give the folder of every journal there is, and of nothing else (`lost+found`); raises OSError."""
    if not directory.is_dir():
        return []
    return sorted(folder for folder in directory.iterdir() if _ID.fullmatch(folder.name) and folder.is_dir())


def take_up(folder: Path) -> Journal | None:
    """Lock a journal whose process is gone; None if one has it, or is just removing it. Raises OSError."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    with ExitStack() as unless_ours:
        unless_ours.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        try:
            named = (folder / "lock").stat()
        except FileNotFoundError:
            return None
        if not os.path.samestat(named, os.fstat(lock)):
            return None  # another one was made meanwhile
        unless_ours.pop_all()
        return Journal(folder, lock)


def journals_left_behind(directory: Path) -> Iterator[Journal]:
    """Lock and give the journals whose process is gone, those that cannot be opened left out; raises OSError."""
    for folder in journal_folders(directory):
        try:
            journal = take_up(folder)
        except OSError:
            continue
        if journal is not None:
            yield journal


def look_at(folder: Path) -> tuple[Journal, bool] | None:
    """Give a journal, to be looked at and released, and whether a process has it; what none has is locked.

    None if it is just being removed; raises OSError.
    """
    journal = take_up(folder)
    if journal is not None:
        return journal, False
    try:
        return Journal(folder, os.open(folder / "lock", os.O_RDONLY)), True
    except FileNotFoundError:
        return None
