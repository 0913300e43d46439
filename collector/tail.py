"""What was appended to a journal last, kept in memory: so that whoever ships it need not read it again.

Whoever is further behind than this reads the file, until he has caught up.
"""

from collections.abc import Sequence
from typing import Final

from collector.segment import RECORD_BYTES, Chunk

MOST_KEPT_BYTES: Final = 1024 * 1024
"""One shipment; with a Redis that keeps up it is a few clicks."""


class Tail:
    """The last lines of a journal, from a position on."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._begin = 0
        self._end = 0

    def add(self, lines: Sequence[bytes], end: int) -> None:
        """Keep lines that were appended, behind which the journal now ends."""
        if end - self._begin > MOST_KEPT_BYTES:
            self._lines.clear()
            self._begin = end
        else:
            self._lines += lines
        self._end = end

    def take(self, position: int, most_lines: int) -> Chunk | None:
        """Give the lines from `position` on, and keep them no longer; None if they begin elsewhere."""
        if position != self._begin:
            self._lines.clear()  # the reader is elsewhere, and goes on from the file's end
            self._begin = self._end
            return None
        taken, self._lines = self._lines[:most_lines], self._lines[most_lines:]
        self._begin = end = self._begin + sum(map(len, taken)) + RECORD_BYTES * len(taken)
        return Chunk(taken, end, position)
