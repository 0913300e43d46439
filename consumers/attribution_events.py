"""What a record says to attribution: a click that an install may find, an install, or nothing. JSON or text; pure."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from collector.event import milliseconds_of
from kafkastore.lookup_keys import lookup_keys
from kafkastore.message import MalformedMessageError, Message, text_of
from kafkastore.record import InAppValue

INSTALL_PATH: Final = "/t/ist"

MATCHED_BY: Final = ("adid", "adid_sha1", "adid_md5", "fingerprint")
"""What a lookup key is made of, by its rank: the surest first."""

_FINGERPRINT: Final = MATCHED_BY.index("fingerprint")

MOST_BYTES: Final = 128 * 1024
"""Of a value: two of them, with every byte as %XX, still fit into a /t/mac. An event is 1 to 2 KB."""

_NOBODY: Final = "0.0.0.0"  # noqa: S104 (so the collector says that it knows no address)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEY: Final = re.compile(r"[0-9a-fA-F]{32}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_EventId = Annotated[str, msgspec.Meta(pattern=f"^{_UUID.pattern}$")]


class UnreadableError(ValueError):
    """A value that is no event in JSON or text; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Click:
    """A click that an install may find, as it is kept."""

    event_id: str
    lookup_key: bytes
    clicked_at_ms: int
    window_from: int
    window_till: int
    """Unix time in seconds; both are inside."""
    link_id: int | None
    user_id: int | None
    campaign: str | None
    network: str | None
    message: bytes | None
    """The whole value, where it was a text."""


@dataclass(frozen=True, slots=True)
class Install:
    """An install, as far as it is looked at."""

    event_id: str
    installed_at: int
    """Unix time in seconds."""
    keys: tuple[tuple[int, bytes], ...]
    """Ranks and lookup keys, in the order in which they are tried."""
    country: str | None
    platform: str | None
    value: InAppValue | Message


class _Click(msgspec.Struct, frozen=True, tag_field="schema", tag="click/1"):
    event_id: _EventId
    clicked_at: datetime
    link_id: _Id | None
    user_id: _Id | None
    campaign: str | None
    network: str | None
    bot_class: str | None
    lookup_key: str | None
    attr_window_from: str | None
    attr_window_till: str | None


class _InApp(msgspec.Struct, frozen=True, tag_field="schema", tag="inapp/1"):
    path: str


_decode_click: Final = msgspec.json.Decoder(_Click).decode
_decode_inapp: Final = msgspec.json.Decoder(_InApp).decode
_decode_whole_inapp: Final = msgspec.json.Decoder(InAppValue).decode


def click_of(value: bytes, text_id: str) -> Click | None:
    """Read a value of `clicks`; None: no install may find it. `text_id` is the event's id, which no text tells.

    Nobody finds a bot's click, one without a key (the visitor wished so) or one without a window (its link has none).
    Raises UnreadableError.
    """
    _check_size(value)
    if is_text(value):
        return _click_of_message(_message(value), value, text_id)
    try:
        click = _decode_click(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableError(f"this is no click/1 in JSON: {error}") from error
    key = _key(click.lookup_key)
    window = _window(click.attr_window_from, click.attr_window_till)
    if key is None or window is None or click.bot_class is not None:
        return None
    return Click(
        event_id=click.event_id.lower(),
        lookup_key=key,
        clicked_at_ms=round(click.clicked_at.timestamp() * 1000),
        window_from=window[0],
        window_till=window[1],
        link_id=click.link_id,
        user_id=click.user_id,
        campaign=_text(click.campaign),
        network=_text(click.network),
        message=None,
    )


def install_of(value: bytes, text_id: str) -> Install | None:
    """Read a value of an in-app topic; None: it is no install. Raises UnreadableError."""
    _check_size(value)
    if is_text(value):
        message = _message(value)
        return _install_of_message(message, text_id) if message.path == INSTALL_PATH else None
    try:
        if _decode_inapp(value).path != INSTALL_PATH:
            return None
        event = _decode_whole_inapp(value)
        installed_at = int(datetime.fromisoformat(event.clicked_at).timestamp())
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise UnreadableError(f"this is no inapp/1 in JSON: {error}") from error
    if not _UUID.fullmatch(event.event_id):
        raise UnreadableError("this is no inapp/1 in JSON: its event_id is no UUID")
    keys = _ranked(event.lookup_keys or [], has_id=bool(event.adid or event.gadid))
    return Install(
        event_id=event.event_id.lower(),
        installed_at=installed_at,
        keys=_without_nobody(keys, event.platform),
        country=_text(event.country),
        platform=_text(event.platform),
        value=event,
    )


def id_of_text(headers: Mapping[str, bytes], where: str) -> str:
    """Give the id of an event in text: its CloudEvents header, else one that is the same at every reading."""
    told = headers.get("ce_id", b"").decode("ascii", "replace")
    return told.lower() if _UUID.fullmatch(told) else str(uuid.uuid5(uuid.NAMESPACE_URL, where))


def is_text(value: bytes) -> bool:
    """Tell a message of the original from JSON."""
    return value.startswith(b"/")


def _click_of_message(message: Message, value: bytes, text_id: str) -> Click | None:
    params: dict[bytes, Any] = message.params
    key = _key(text_of(params, "lookup_key"))
    window = _window(text_of(params, "attr_window_from"), text_of(params, "attr_window_till"))
    if key is None or window is None or message.bot_name is not None:
        return None
    return Click(
        event_id=text_id,
        lookup_key=key,
        clicked_at_ms=milliseconds_of(text_of(params, "clicked_at"), message.ts),
        window_from=window[0],
        window_till=window[1],
        link_id=_number(text_of(params, "campaign_link_id")),
        user_id=_number(text_of(params, "user_id")),
        campaign=_text(text_of(params, "campaign")),
        network=_text(text_of(params, "network")),
        message=value,
    )


def _install_of_message(message: Message, text_id: str) -> Install:
    params = message.params
    adid = text_of(params, "adid") or text_of(params, "gadid")
    keys = _ranked(lookup_keys(adid, message.ip, message.platform), has_id=bool(adid))
    return Install(
        event_id=text_id,
        installed_at=message.ts,
        keys=_without_nobody(keys, message.platform),
        country=_text(message.country),
        platform=_text(message.platform) or None,
        value=message,
    )


def _ranked(keys: list[str], *, has_id: bool) -> list[tuple[int, bytes]]:
    """Give the keys with what each is made of: three of an advertising id, where there is one, and the address's."""
    ranks = range(len(MATCHED_BY)) if has_id else (_FINGERPRINT,)
    return [(rank, key) for rank, text in zip(ranks, keys, strict=False) if (key := _key(text))]


def _without_nobody(keys: list[tuple[int, bytes]], platform: str | None) -> tuple[tuple[int, bytes], ...]:
    """Leave out the fingerprint of an address nobody knows: it would match everybody of that platform."""
    nobody = bytes.fromhex(lookup_keys(None, _NOBODY, platform)[0])
    return tuple(pair for pair in keys if pair != (_FINGERPRINT, nobody))


def _check_size(value: bytes) -> None:
    if len(value) > MOST_BYTES:
        raise UnreadableError(f"{len(value)} bytes are more than the {MOST_BYTES} that a /t/mac has room for")


def _message(value: bytes) -> Message:
    try:
        return Message.decode(value)
    except MalformedMessageError as error:
        raise UnreadableError(f"this is no message: {error}") from error


def _key(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text and _KEY.fullmatch(text) else None


def _window(begin: str | None, end: str | None) -> tuple[int, int] | None:
    if begin is None or end is None:
        return None
    window_from, window_till = _seconds(begin), _seconds(end)
    return None if window_from is None or window_till is None else (window_from, window_till)


@lru_cache(maxsize=1024)  # clicks come in the order of time: a few seconds, times the windows in use
def _seconds(text: str) -> int | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(at.timestamp()) if at.tzinfo else None


def _number(text: str | None) -> int | None:
    return int(text) if text and _DIGITS.fullmatch(text) else None


def _text(text: str | None) -> str | None:
    """PostgreSQL has no NUL in its texts."""
    return text.replace("\0", "\ufffd") if text else text
