"""Which event a record is, and who stores it: what makes records of different sides the same event."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

import msgspec


class Side(StrEnum):
    """Who has events."""

    KAFKA = "kafka"
    ARCHIVE = "archive"
    CLICKHOUSE = "clickhouse"
    SQL = "sql"

    @property
    def bit(self) -> int:
        """Stands for it in a set of sides."""
        return 1 << list(Side).index(self)


class Kind(IntEnum):
    """What decides who stores an event."""

    OTHER = 0
    CLICK = 1
    REFERRAL = 2


STORED_BY: Final = {
    Kind.OTHER: (Side.KAFKA, Side.ARCHIVE),
    Kind.CLICK: (Side.KAFKA, Side.ARCHIVE, Side.CLICKHOUSE),
    Kind.REFERRAL: (Side.KAFKA, Side.ARCHIVE, Side.SQL),
}

_CLICKS: Final = frozenset({"clicks", "bots"})
_REFERRALS: Final = frozenset({"clicks", "referrals", "bots"})
"""What the consumers read that store them."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of time, without its end. Of a record its timestamp counts, which is the time of the click."""

    begin: datetime
    end: datetime

    @property
    def begin_ms(self) -> int:
        """In ms since 1970."""
        return _milliseconds(self.begin)

    @property
    def end_ms(self) -> int:
        """In ms since 1970."""
        return _milliseconds(self.end)


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that was seen somewhere."""

    event_id: str
    kind: Kind
    topic: str
    """Without the prefix."""


class _Event(msgspec.Struct, frozen=True):
    event_id: str
    schema: str = ""


_decode: Final = msgspec.json.Decoder(_Event).decode


def seen(record: Any, prefix: str) -> Seen:
    """Tell which event a record is, of Kafka's or of the archive's.

    Its id is that in the value, else the header's, else a hash of the record: dead letters have none.
    """
    topic = record.topic.removeprefix(prefix)
    try:
        event = _decode(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Seen(_id_without_value(record), Kind.OTHER, topic)
    kind = Kind.OTHER
    if event.schema == "click/1" and topic in _CLICKS:
        kind = Kind.CLICK
    elif event.schema == "referral/1" and topic in _REFERRALS:
        kind = Kind.REFERRAL
    return Seen(event.event_id.lower(), kind, topic)


def _id_without_value(record: Any) -> str:
    for name, content in record.headers:
        if name == "ce_id" and content:
            return str(content.decode("utf-8", "replace")).lower()
    whole = repr((record.timestamp, record.key, record.value, record.headers))
    return "sha256:" + hashlib.sha256(whole.encode()).hexdigest()


def _milliseconds(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)
