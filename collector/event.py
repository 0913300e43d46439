"""The event line everybody shares: what the collector writes to Redis and the kafkastore reads from it.

    <ip> <epoch seconds> <topic> <path> <params> <user agent>

Single spaces; the user agent is everything after the params, may hold spaces and may be empty. Others push such
lines too, so decoding is total: whatever bytes come in, out comes a whole Event or a MalformedEventError.
"""

import re
import string
from binascii import a2b_qp
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

CLICKS: Final = "clicks"
REFERRALS: Final = "referrals"
ORPHANS: Final = "orphans"

CLICK_PATH: Final = "/t/click"
REFERRAL_PATH: Final = "/t/referral"
ORPHAN_PATH: Final = "/t/orphan"

NO_PARAMS: Final = b"p"
"""The params of an in-app event without a query: a field of the line is never empty."""

Value = bytes | None | list[bytes | None]
"""None is a bare key (`k`), b"" an empty value (`k=`), a list a repeated key."""

Text = str | None | list[str | None]
"""The same, in text."""

Params = list[tuple[bytes, bytes | None]]
"""A query string's pairs, in order."""

_UNRESERVED: Final = string.ascii_letters + string.digits + "-._~"
_QUOTED: Final = tuple(
    character if character in _UNRESERVED else f"%{ord(character):02X}" for character in map(chr, range(256))
)
"""By byte: what it is in the params."""

_AND, _IS = "\x1e", "\x1f"
_MARKED: Final = bytes.maketrans(
    bytes((*range(32), *range(127, 256))) + b"+&=%", bytes(32 + 129) + f" {_AND}{_IS}=".encode()
)
"""A query as `put_last_texts` decodes it; \\0 is what it does not take."""
_NO_ESCAPE: Final = re.compile(rb"%(?![02-9A-Fa-f][0-9A-Fa-f])")
"""Or one of a control that could be taken for a mark."""

_USER_AGENT_CONTROLS: Final = bytes.maketrans(b"\r\n\t\0", b"    ")
_FORBIDDEN_BEFORE_USER_AGENT: Final = (b"\0", b"\r", b"\n")
_FIELDS_BEFORE_USER_AGENT: Final = 5
_TIMESTAMP_DIGITS: Final = 10


class MalformedEventError(ValueError):
    """A line that is no event. `topic` is the line's own where it could be told."""

    def __init__(self, reason: str, topic: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.topic = topic


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing a visitor did, as it travels from the collector to the kafkastore."""

    ip: str
    at: int
    """Unix time in seconds."""
    topic: str
    path: str
    params: bytes
    """As in a query string, `encode_params` of what was known."""
    user_agent: bytes = b""

    def encode(self) -> bytes:
        """Give the line; controls in the user agent become spaces, so that it stays one line."""
        user_agent = self.user_agent.translate(_USER_AGENT_CONTROLS)
        return b" ".join((f"{self.ip} {self.at} {self.topic} {self.path}".encode(), self.params, user_agent))

    @staticmethod
    def decode(line: bytes, topics: Collection[str]) -> "Event":
        """Read one line; raise MalformedEventError for anything but an event of one of `topics`.

        Field 1 may be no address: the event is whole all the same, only nobody knows where it came from.
        """
        fields = line.split(b" ", _FIELDS_BEFORE_USER_AGENT)
        topic = _topic(fields, topics)
        if len(fields) < _FIELDS_BEFORE_USER_AGENT:
            raise MalformedEventError("fewer than five fields", topic)
        ip, at, _, path, params, *user_agent = fields
        if not (ip and at and path and params and fields[2]):
            raise MalformedEventError("an empty field", topic)
        before_user_agent = line[: len(line) - len(user_agent[0])] if user_agent else line
        if any(control in before_user_agent for control in _FORBIDDEN_BEFORE_USER_AGENT):
            raise MalformedEventError("a control character outside the user agent", topic)
        if topic is None:
            raise MalformedEventError("unknown topic")
        if not (at.isdigit() and len(at) <= _TIMESTAMP_DIGITS):
            raise MalformedEventError("the time is not 1 to 10 digits", topic)
        if not path.startswith(b"/"):
            raise MalformedEventError("the path does not start with a slash", topic)
        try:
            path_text = path.decode()
        except UnicodeDecodeError:
            raise MalformedEventError("the path is not UTF-8", topic) from None
        return Event(
            ip=ip.decode("utf-8", "replace"),
            at=int(at),
            topic=topic,
            path=path_text,
            params=params,
            user_agent=user_agent[0] if user_agent else b"",
        )


def _topic(fields: list[bytes], topics: Collection[str]) -> str | None:
    topic = fields[2].decode("utf-8", "replace") if len(fields) > 2 else ""  # noqa: PLR2004 (its place in the line)
    return topic if topic in topics else None


def encode_params(params: Mapping[str, Value]) -> bytes:
    """Encode in byte order of the keys; every byte but A-Za-z0-9-._~ becomes %XX."""
    return encode_query((key.encode(), params[key]) for key in sorted(params))


def encode_query(params: Iterable[tuple[bytes, Value]]) -> bytes:
    """Encode pairs in the order given."""
    parts = []
    for key, value in params:
        name = quoted(key)
        values = value if isinstance(value, list) else (value,)
        parts += [name if one is None else f"{name}={quoted(one)}" for one in values]
    return "&".join(parts).encode()


def quoted(value: bytes) -> str:
    """Encode one key or value: 0.1 µs for a word, 1.1 for a URL, where urllib takes 0.4 and 2.8 (measured)."""
    return value.decode() if value.isalnum() else value.decode("latin-1").translate(_QUOTED)


def quoted_text(value: str) -> str:
    """Encode one key or value as UTF-8; what came in a header that is not UTF-8 passes through."""
    if not value.isascii():
        return quoted(value.encode("utf-8", "surrogateescape"))
    return value if value.isalnum() else value.translate(_QUOTED)


def given(value: str | None) -> str:
    """Give what stands behind a param's name; nothing behind one without a value."""
    return "" if value is None else f"={quoted_text(value)}"


def decode_query(query: bytes) -> Params:
    """Decode a query string into pairs, in order: `+` is a space, `;` no separator, a bare key's value None."""
    unquote = unquote_to_bytes if b"%" in query else bytes
    pairs: Params = []
    for part in query.replace(b"+", b" ").split(b"&"):
        if part:
            key, equals, value = part.partition(b"=")
            pairs.append((unquote(key), unquote(value) if equals else None))
    return pairs


def decode_params(query: bytes) -> dict[bytes, Value]:
    """Decode a query string into a dict: a repeated key's values become a list, in order."""
    params: dict[bytes, Value] = {}
    for key, value in decode_query(query):
        if key not in params:
            params[key] = value
        else:
            first = params[key]
            params[key] = [*first, value] if isinstance(first, list) else [first, value]
    return params


def decode_texts(query: str) -> dict[str, Text]:
    """Decode as `decode_params`, in text: bytes that are not UTF-8 become U+FFFD."""
    texts: dict[str, Text] = {}
    for part in query.replace("+", " ").split("&"):
        if part:
            name, equals, encoded = part.partition("=")
            value = (_unquoted(encoded) if "%" in encoded else encoded) if equals else None
            if "%" in name:
                name = _unquoted(name)
            if name in texts:
                first = texts[name]
                texts[name] = [*first, value] if isinstance(first, list) else [first, value]
            else:
                texts[name] = value
    return texts


def put_last_texts(query: bytes, texts: dict[str, Any]) -> None:
    """Decode into `texts`, of a repeated key the last value only: for every event to Kafka.

    All of it in one go, as quoted-printable, for which the standard library has C: = in the place of %, and controls
    in the places of & and =. One value after the other takes twice as long (7 instead of 15 µs, measured).
    """
    marked = query.translate(_MARKED)
    if b"\0" in marked or _NO_ESCAPE.search(query):
        for name, found in decode_texts(query.decode("utf-8", "replace")).items():
            texts[name] = found[-1] if isinstance(found, list) else found
        return
    for part in a2b_qp(marked).decode("utf-8", "replace").split(_AND):
        name, equals, value = part.partition(_IS)
        texts[name] = (value.replace(_IS, "=") if _IS in value else value) if equals else None


def _unquoted(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace")


def utc_time(at_ms: int) -> str:
    """Give a time as RFC 3339 in UTC with milliseconds."""
    return f"{utc_seconds(at_ms // 1000)}.{at_ms % 1000:03d}Z"


def milliseconds_of(clicked_at: str | None, seconds: int) -> int:
    """Read the collector's time, which must fall into the event's second; else give the second's beginning."""
    try:
        at = datetime.fromisoformat(clicked_at or "")
    except ValueError:
        return seconds * 1000
    milliseconds = round(at.timestamp() * 1000) if at.tzinfo else 0
    return milliseconds if milliseconds // 1000 == seconds else seconds * 1000


@lru_cache(maxsize=16)  # clicks come in the order of time: a handful of seconds are in use at once
def utc_seconds(seconds: int) -> str:
    """Give a time as RFC 3339 in UTC without its zone."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
