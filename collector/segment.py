"""A segment of a journal: a header line, then records. How records are made, and how they are found again.

A record is its line's length and CRC-32 (little-endian, 4 bytes each), then the line.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

_RECORD: Final = struct.Struct("<II")
RECORD_BYTES: Final = _RECORD.size
"""What a record has beside its line."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records of a journal, in order."""

    lines: list[bytes]
    end: int
    """The position after them."""
    begin: int
    """The position they begin at: later than the one asked for where segments are gone."""
    torn: int = 0
    """Bytes passed over because no whole record stood there."""


def records_of(lines: Iterable[bytes]) -> bytes:
    """Give the records of some lines."""
    return b"".join([_RECORD.pack(len(line), crc32(line)) + line for line in lines])


def read_segment(
    path: Path,
    begin: int,
    position: int,
    limit: int | None,
    *,
    most_lines: int,
    most_bytes: int,
    sealed: bool,
) -> Chunk:
    """Read records of one segment from `position` up to `limit` (None: its end).

    In a sealed segment what is no whole record is passed over; in the one still written to it is not there yet.
    """
    with path.open("rb") as file:
        header = len(file.readline())
        end = begin + path.stat().st_size - header if limit is None else limit
        if end <= position:  # shipped from memory, then lost by a power failure
            return Chunk([], position, position)
        file.seek(header + position - begin)
        data = file.read(min(most_bytes, end - position))
        lines, used, torn = _records(data, most_lines)
        if not used and len(data) < end - position:
            # One record larger than most_bytes: it goes alone.
            data += file.read(end - position - len(data))
            lines, used, torn = _records(data, 1)
    if not used and sealed:
        return Chunk([], end, position, torn=end - position)
    return Chunk(lines, position + used, position, torn)


def _records(data: bytes, most_lines: int) -> tuple[list[bytes], int, int]:
    """Split into (lines, bytes used, bytes of records whose checksum is wrong)."""
    lines: list[bytes] = []
    position = torn = 0
    size = len(data)
    while len(lines) < most_lines and position + RECORD_BYTES <= size:
        length, checksum = _RECORD.unpack_from(data, position)
        if length == 0:
            break  # no event is empty: this is a tail that a power failure left full of zeros
        end = position + RECORD_BYTES + length
        if end > size:
            break
        line = data[position + RECORD_BYTES : end]
        if crc32(line) == checksum:
            lines.append(line)
        else:
            torn += end - position
        position = end
    return lines, position, torn
