"""Records of one partition on their way into files, packed as they come, so that a large file needs little memory."""

import gzip
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from consumers.archive_file import day_of, line_of

_LEVEL: Final = 6

_PACKED_AT: Final = 1024 * 1024
"""Bytes of lines that are packed together: gzip gains nothing by more."""


@dataclass(slots=True)
class Day:
    """What is gathered of one day."""

    first: int
    last: int
    """Offsets of its first and its last record."""
    size: int = 0
    """Bytes held."""
    _packed: list[bytes] = field(default_factory=list)
    _lines: list[bytes] = field(default_factory=list)
    _lines_bytes: int = 0

    def add(self, offset: int, line: bytes) -> None:
        """Add a record's line."""
        self.last = offset
        self._lines.append(line)
        self._lines_bytes += len(line)
        self.size += len(line)
        if self._lines_bytes > _PACKED_AT:
            self._pack()

    def file(self) -> bytes:
        """Give all as a gzip file, of one or more members."""
        if self._lines:
            self._pack()
        return b"".join(self._packed)

    def _pack(self) -> None:
        packed = gzip.compress(b"".join(self._lines), _LEVEL, mtime=0)
        self._packed.append(packed)
        self.size += len(packed) - self._lines_bytes
        self._lines.clear()
        self._lines_bytes = 0


@dataclass(slots=True)
class Gathered:
    """What is gathered between two positions of a partition."""

    begin: int
    end: int
    days: dict[str, Day] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(day.size for day in self.days.values())

    @property
    def age_seconds(self) -> float:
        """How long the first record has waited."""
        return time.monotonic() - self.since if self.days else 0.0

    def add(self, records: Iterable[Any], end: int) -> None:
        """Add what lies between the end and a new one."""
        for record in records:
            if not self.days:
                self.since = time.monotonic()
            day = self.days.setdefault(day_of(record.timestamp), Day(record.offset, record.offset))
            day.add(record.offset, line_of(record))
        self.end = end
