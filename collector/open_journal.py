"""The journal of this process: events are appended, and are in a file before their visitors are answered.

An append that fails or falls short is taken back and ends its segment, so only a segment's tail can be torn.
"""

import errno
import fcntl
import os
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from collector.journal import SUFFIX, Journal
from collector.segment import Chunk, records_of
from collector.space import Space
from collector.tail import Tail

SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""A segment is the unit of removal; small beside JOURNAL_MAX_BYTES (1 GiB), large beside one batch (1 MiB)."""

_PROBE_BYTES: Final = 4096
"""A block: a full disk still makes room for the name of an empty file."""

_LEAST_FREE_BYTES: Final = 64 * 1024
"""Room for a large event: a disk with a block left takes the probe, and no click."""


class JournalFullError(Exception):
    """The journal holds JOURNAL_MAX_BYTES that are not shipped yet."""


class OpenJournal(Journal):
    """A journal this process appends to; with `synced`, no segment is closed before the disk has it."""

    def __init__(self, directory: Path, space: Space, *, synced: bool = False) -> None:
        """Create it under `directory`; raises OSError where nothing can be written."""
        super().__init__(*_create(directory))
        self.position = 0
        """Where the next record goes."""
        self.size = 0
        """Bytes on disk."""
        self._space = space
        self._synced = synced
        self._segment_bytes = min(SEGMENT_BYTES, max(space.most_bytes // 8, 1))
        self._segment = -1
        self._segment_begin = self._segment_end = 0
        self._tail = Tail()
        self._spare = -1
        """An open file that a segment may take the place of."""
        self._keep_spare()

    def begin_again(self, shipped: int | None) -> None:
        """Go on as a new journal: the folder of this one was taken away under us. Raises OSError, nothing changed.

        What is in memory behind the position `shipped` goes along; nothing if that is not known (None).
        """
        folder, lock = _create(self.folder.parent)
        found = None if shipped is None else self._tail.take(shipped, sys.maxsize)
        with suppress(OSError):  # what had it may be gone, too
            self.close()
        self.release()
        self.folder, self._lock = folder, lock
        self.id = folder.name
        self._queue_id = None
        self._space.own -= self.size
        self.position = self.size = 0
        self._tail = Tail()
        self._keep_spare()
        if found and found.lines:
            with suppress(OSError, JournalFullError):
                self.append(*found.lines)

    def probe(self) -> None:
        """Raise OSError if nothing could be written now: asked when no visitor's event tells."""
        self._space.look_at(self.folder)
        disk = os.statvfs(self.folder)
        tells = disk.f_blocks > 0  # some file systems do not
        if tells and disk.f_bfree * disk.f_frsize < _LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        probe = self.folder / "probe"
        probe.write_bytes(bytes(_PROBE_BYTES))
        probe.unlink()

    def append(self, *lines: bytes) -> None:
        """Write all of these lines or none; raises JournalFullError, or OSError when the disk refuses them."""
        records = records_of(lines)
        if self._space.taken + len(records) > self._space.most_bytes:
            raise JournalFullError
        if self.position + len(records) > self._segment_end:
            self._seal()
            self._open_segment()
        try:
            written = os.write(self._segment, records)
        except OSError:
            self._take_back()
            raise
        if written != len(records):
            self._take_back()
            raise OSError(f"{self.folder}: only {written} of {len(records)} bytes could be written")
        self.position += written
        self._grow(written)
        self._tail.add(lines, self.position)

    def read(self, position: int, *, most_lines: int, most_bytes: int, until: int | None = None) -> Chunk:
        """Read as any journal is read, but what was appended last from memory."""
        return self._tail.take(position, most_lines) or super().read(
            position, most_lines=most_lines, most_bytes=most_bytes, until=until
        )

    def forgettable(self, position: int, *, older_than: float) -> list[Path]:
        """Give the segments that may go: old ones, and any that was shipped where the space is needed."""
        return super().forgettable(
            position, older_than=time.time() + 1 if self._space.is_crowded else older_than
        )

    def forget(self, segments: Iterable[Path]) -> None:
        """Remove segments."""
        for path in segments:
            size = path.stat().st_size
            path.unlink()
            self._grow(-size)

    def sync(self) -> int:
        """Have the disk keep what was appended, and give the position up to which it does. Blocks; raises OSError.

        May run in a thread beside appends.
        """
        position, segment = self.position, self._segment
        if segment >= 0:
            own = os.dup(segment)  # ours may be closed meanwhile
            try:
                os.fsync(own)
            finally:
                os.close(own)
        return position

    def close(self) -> None:
        """Append no more."""
        self._seal()
        self._let_spare_go()

    def _open_segment(self) -> None:
        path = self._path(self.position)
        header = self._header
        segment = self._opened(path)
        try:
            written = os.write(segment, header)
        except OSError:
            written = 0
        if written != len(header):
            os.close(segment)
            path.unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._segment, self._segment_begin = segment, self.position
        self._segment_end = self.position + self._segment_bytes
        self._grow(len(header))
        if self._synced:
            _sync_folder(self.folder)

    def _take_back(self) -> None:
        """Leave nothing of a write that failed or fell short: the next segment begins where it did."""
        self._seal()
        path, kept = self._path(self._segment_begin), self.position - self._segment_begin
        if kept:
            os.truncate(path, len(self._header) + kept)
        else:
            path.unlink()
            self._grow(-len(self._header))

    def _path(self, begin: int) -> Path:
        return self.folder / f"{begin:020d}{SUFFIX}"

    @property
    def _header(self) -> bytes:
        return b"onward journal 1 %b\n" % self.id.encode()

    def _grow(self, size: int) -> None:
        self.size += size
        self._space.own += size

    def _seal(self) -> None:
        segment, self._segment, self._segment_end = self._segment, -1, 0
        if segment < 0:
            return
        try:
            if self._synced:
                os.fsync(segment)
        finally:
            os.close(segment)
            self._keep_spare()

    def _opened(self, path: Path) -> int:
        """Open a new segment, also when strangers hold all the files that the system lets us open."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        try:
            return os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno != errno.EMFILE or self._spare < 0:
                raise
        self._let_spare_go()
        return os.open(path, flags, 0o600)

    def _keep_spare(self) -> None:
        if self._spare < 0:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _let_spare_go(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
        self._spare = -1


def _create(directory: Path) -> tuple[Path, int]:
    """Make the folder of a new journal, and give it with its lock."""
    name = str(uuid.uuid4())
    unlocked = directory / f".{name}"
    unlocked.mkdir(parents=True)
    try:
        lock = os.open(unlocked / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        unlocked.rmdir()
        raise
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Others see the journal only now that it is locked: they would take it for one left behind.
    return unlocked.rename(directory / name), lock


def _sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
