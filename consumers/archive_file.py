"""A file of the archive: where it is, by topic, day and partition, and its lines, a record each, exact to the byte.

    clicks/2026-01-31/0/00000000000000001000-00000000000000001999.<cluster>.<number>.jsonl.gz

The two offsets are those of the first and the last record of that day in the file. Offsets mean something in one
cluster only, and the number is that of the file's claim: no name is ever used for anything else.

A line is a record: topic, partition, offset, timestamp, key, headers, value. A value that is a JSON object stands
there as it is; any other, a key and a header as text, and what is no UTF-8 in base64 under another name.
"""

import base64
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

UNDATED: Final = "undated"
"""The day of a record whose timestamp is none of this calendar."""

_LAST_MS: Final = 253_402_300_800_000
"""The year 10000."""

_DAY_MS: Final = 86_400_000

_decode_raw: Final = msgspec.json.Decoder(msgspec.Raw).decode
_encode: Final = msgspec.json.encode


class DamagedError(Exception):
    """A file of the archive that cannot be read to its end; the sentence says why."""


class _Line(msgspec.Struct, omit_defaults=True):
    topic: str
    partition: int
    offset: int
    timestamp: int
    headers: list[list[str | None]]
    """Name and value; a third element is a value in base64."""
    value: msgspec.Raw = msgspec.Raw(b"null")
    value_base64: str | None = None
    key: str | None = None
    key_base64: str | None = None


_decode_line: Final = msgspec.json.Decoder(_Line).decode


@dataclass(frozen=True, slots=True)
class Archived:
    """A record as it was in Kafka; the names are those of aiokafka's ConsumerRecord."""

    topic: str
    """With the prefix."""
    partition: int
    offset: int
    timestamp: int
    """In ms since 1970."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def day_of(timestamp: int) -> str:
    """Give the UTC day of a record."""
    if not 0 <= timestamp < _LAST_MS:
        return UNDATED
    return datetime.fromtimestamp(timestamp // _DAY_MS * 86_400, UTC).strftime("%Y-%m-%d")


def path_of(where: tuple[str, int], day: str, offsets: tuple[int, int], claim: tuple[str, int]) -> str:
    """Give the path of a file below the archive's root.

    `where` is topic and partition, `offsets` the first and the last, `claim` the cluster and the claim's number.
    """
    (topic, partition), (first, last), (cluster_id, number) = where, offsets, claim
    return f"{topic}/{day}/{partition}/{first:020}-{last:020}.{cluster_id}.{number}.jsonl.gz"


def day_in(folder: str) -> date | None:
    """Give the day that a folder is named after."""
    try:
        return date.fromisoformat(folder.rpartition("/")[2])
    except ValueError:
        return None


def line_of(record: Any) -> bytes:
    """Write a record of Kafka's as a line."""
    key, key_base64 = _text_or_base64(record.key)
    value, value_base64 = _json_or_base64(record.value)
    headers = []
    for name, content in record.headers:
        text, encoded = _text_or_base64(content)
        headers.append([name, text] if encoded is None else [name, None, encoded])
    line = _Line(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        headers=headers,
        value=value,
        value_base64=value_base64,
        key=key,
        key_base64=key_base64,
    )
    return _encode(line) + b"\n"


def archived_of(line: bytes) -> Archived:
    """Read a line; raises DamagedError."""
    try:
        read = _decode_line(line)
        return Archived(
            read.topic,
            read.partition,
            read.offset,
            read.timestamp,
            _bytes_of(read.key, read.key_base64),
            _value_of(read),
            tuple((str(name), _bytes_of(text, *encoded)) for name, text, *encoded in read.headers),
        )
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise DamagedError(f"a line is no record: {error}") from error


def records_of(file: bytes) -> Iterator[Archived]:
    """Read a whole file, a record at a time; raises DamagedError behind the last one that can be read."""
    with gzip.GzipFile(fileobj=io.BytesIO(file)) as lines:
        while True:
            try:
                line = lines.readline()
            except (OSError, EOFError, zlib.error) as error:
                raise DamagedError(f"it cannot be unpacked: {error}") from error
            if not line:
                return
            yield archived_of(line)


def _json_or_base64(value: bytes | None) -> tuple[msgspec.Raw, str | None]:
    if value is None:
        return msgspec.Raw(b"null"), None
    text, encoded = _text_or_base64(value)
    if text is None:
        return msgspec.Raw(b"null"), encoded
    return msgspec.Raw(value if _is_object(value) else _encode(text)), None


def _is_object(value: bytes) -> bool:
    """Tell whether a value may stand in a line as it is."""
    if value[:1] != b"{" or value[-1:] != b"}" or b"\n" in value or b"\r" in value:
        return False
    try:
        _decode_raw(value)
    except msgspec.MsgspecError:
        return False
    return True


def _value_of(line: _Line) -> bytes | None:
    if line.value_base64 is not None:
        return base64.b64decode(line.value_base64, validate=True)
    raw = bytes(line.value)
    if raw[:1] == b"{":
        return raw
    text = msgspec.json.decode(raw, type=str | None)
    return None if text is None else text.encode()


def _text_or_base64(content: bytes | None) -> tuple[str | None, str | None]:
    if content is None:
        return None, None
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def _bytes_of(text: str | None, encoded: str | None = None) -> bytes | None:
    if encoded is not None:
        return base64.b64decode(encoded, validate=True)
    return None if text is None else text.encode()
