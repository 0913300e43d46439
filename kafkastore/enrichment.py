"""Event → Record: place, device, bot, visitor, mask. Pure: the clock, the batch and the look-ups are given."""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

import msgspec

from collector.event import (
    CLICK_PATH,
    CLICKS,
    NO_PARAMS,
    ORPHAN_PATH,
    ORPHANS,
    REFERRAL_PATH,
    REFERRALS,
    Event,
    Text,
    decode_last_texts,
    decode_texts,
    milliseconds_of,
    utc_seconds,
    utc_time,
)
from collector.platform import platform_of
from collector.topics import BOTS
from geoip.place import NOWHERE, Place
from kafkastore.adtekio import text_value
from kafkastore.bots import bot_of
from kafkastore.device import device_of
from kafkastore.lookup_keys import lookup_keys
from kafkastore.record import (
    ClickValue,
    EventValue,
    InAppValue,
    OrphanValue,
    Record,
    ReferralValue,
    ValueFormat,
    cloud_event_headers,
    encode_value,
)
from kafkastore.visitor import address_of, masked, visitor_id

_TYPES: Final = {
    (CLICKS, CLICK_PATH): "click",
    (REFERRALS, REFERRAL_PATH): "referral",
    (ORPHANS, ORPHAN_PATH): "orphan",
}
_SCHEMAS: Final = {name: f"{name}/1" for name in ("click", "referral", "orphan", "inapp")}
_TYPE_OF_TOPIC: Final = {CLICKS: "click", REFERRALS: "referral", ORPHANS: "orphan"}

_Fields = dict[str, Any]
_Value = TypeVar("_Value", ClickValue, ReferralValue, OrphanValue)

_NO_SIGNALS: Final[frozenset[str]] = frozenset()

_IDENTIFYING: Final = frozenset(
    {"ip", "visitor_id", "adid", "gadid", "idfa_comb", "click", "partner_data", "lookup_key", "lookup_keys"}
) | frozenset({"referer", "params", "reqparams"})
"""What is null in Kafka for a visitor whose wish not to be tracked is honoured."""

_TIME_LETTERS: Final = len("2026-01-31T12:00:00.123Z")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MOST_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decided about bots and privacy."""

    bots: Literal["separate", "flag", "drop"] = "separate"
    ip_privacy: Literal["mask", "full", "none"] = "mask"
    honor_gpc: bool = True
    honor_dnt: bool = False
    value_format: ValueFormat = "json"
    visitor_key: Callable[[int], bytes] | None = None
    """Gives the key of visitor ids for an event's Unix time; None: they are plain hashes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a line stood: it gives a line without an id the same one at every delivery."""

    batch_id: str
    index: int

    def event_id(self) -> str:
        """UUIDv5(batch id, index)."""
        return str(uuid.uuid5(uuid.UUID(self.batch_id), str(self.index)))


def enrich(
    event: Event, source: Source, *, now_ms: int, place_of: Callable[[str], Place], policy: Policy
) -> Record | None:
    """Give the record of an event, or None for a bot's under BOTS=drop.

    Missing places and hopeless user agents are null fields, never errors.
    """
    known_type = _TYPES.get((event.topic, event.path))
    # What the line tells, by our names, which are those of the value's fields; what we find out comes over it.
    fields: _Fields = decode_last_texts(event.params) if known_type else {}
    event_type = known_type or _TYPE_OF_TOPIC.get(event.topic, "inapp")

    told = fields.get("signals")
    signals = frozenset(told.split(",")) - {""} if told else _NO_SIGNALS
    event_id = fields.get("event_id") or ""
    if not _UUID.fullmatch(event_id):
        event_id = source.event_id()
    clicked_at, at_ms = _time_of(fields.get("clicked_at"), event.at)

    fields |= agent_of(event.user_agent, signals)
    fields["schema"] = _SCHEMAS[event_type]
    fields["event_id"] = event_id
    fields["event_type"] = event_type
    fields["clicked_at"] = clicked_at
    fields["klag_ms"] = max(now_ms - at_ms, 0)
    _add_whereabouts(fields, event, signals, place_of, policy)
    query = event.params.decode("utf-8", "replace") if known_type is None else fields.get("reqparams") or ""
    match event_type:
        case "click":
            value: EventValue = _click(fields, query, policy)
        case "referral":
            value = _referral(fields)
        case "orphan":
            value = _value(OrphanValue, fields | {"params": decode_texts(query)})
        case _:
            value = _inapp(fields, query, event, policy)

    topic = event.topic
    if value.bot_class is not None and topic in (CLICKS, REFERRALS):
        if policy.bots == "drop":
            return None
        topic = BOTS if policy.bots == "separate" else topic
    anonymous = ("gpc" in signals and policy.honor_gpc) or ("dnt" in signals and policy.honor_dnt)
    if anonymous:
        value = _anonymous(value)
    key = getattr(value, "lookup_key", None) or value.visitor_id or event_id
    return Record(
        topic=topic,
        key=key.encode(),
        value=encode_value(value)
        if policy.value_format == "json"
        else text_value(event, value, now_ms=now_ms, anonymous=anonymous, own_params=event_type != "inapp"),
        # A broker refuses times to come, and with one record its whole batch.
        timestamp_ms=min(at_ms, now_ms),
        headers=cloud_event_headers(topic, event_type, event_id, clicked_at, policy.value_format),
    )


# 32,768 agents, more than a large site meets in a day: 32 MB of the usual ones (measured), never above 80.
@lru_cache(maxsize=32_768)
def _known_agent(user_agent: bytes, signals: frozenset[str]) -> Mapping[str, str | None]:
    device = device_of(user_agent)
    bot = bot_of(user_agent, signals)
    return {
        "user_agent": user_agent.decode("utf-8", "replace"),
        "browser": device.browser,
        "os": device.os,
        "device": device.device,
        "device_name": device.device_name,
        "platform": platform_of(user_agent) or None,
        "bot_name": bot.name if bot else None,
        "bot_class": bot.class_ if bot else None,
        "bot_reason": bot.reason if bot else None,
    }


_LONGEST_KNOWN_AGENT: Final = 512
"""Longer ones are rare and mostly hostile: they are looked at each time, so that they cannot fill the memory."""


def agent_of(user_agent: bytes, signals: frozenset[str]) -> Mapping[str, str | None]:
    """Give what a user agent and the collector's signals say, by field; looked at once for each that is met often."""
    know = _known_agent if len(user_agent) <= _LONGEST_KNOWN_AGENT else _known_agent.__wrapped__
    return know(user_agent, signals)


def _add_whereabouts(
    fields: _Fields, event: Event, signals: frozenset[str], place_of: Callable[[str], Place], policy: Policy
) -> None:
    """Place and visitor by the full address, which is masked only then."""
    address = address_of(event.ip)
    if address == "0.0.0.0":  # noqa: S104 (so the collector says that nobody knows)
        address = None
    keys_are_kept = policy.ip_privacy != "none"  # who tries all addresses turns a key made of one back
    key = policy.visitor_key(event.at) if policy.visitor_key else None
    place = place_of(address) if address and "anonymous_ip" not in signals else NOWHERE
    fields["visitor_id"] = (
        visitor_id(address, event.user_agent, event.at, key) if address and keys_are_kept else None
    )
    fields["ip"] = _kept_address(address, policy) if address else None
    fields["country"], fields["region"], fields["city"] = place.country, place.region, place.city


def _kept_address(address: str, policy: Policy) -> str | None:
    if policy.ip_privacy == "mask":
        return masked(address)
    return address if policy.ip_privacy == "full" else None


def _value(of: type[_Value], fields: _Fields) -> _Value:
    values: Iterable[Any] = map(fields.get, of.__struct_fields__)
    return of(*values)


def _click(fields: _Fields, query: str, policy: Policy) -> ClickValue:
    fields["link_id"] = fields["campaign_link_id"] = _number(fields.get("campaign_link_id"))
    fields["user_id"] = _number(fields.get("user_id"))
    fields["params"] = decode_texts(query)
    if policy.ip_privacy == "none" and fields.get("idfa_comb") is None:
        fields["lookup_key"] = None
    return _value(ClickValue, fields)


def _referral(fields: _Fields) -> ReferralValue:
    fields["referer"] = fields.get("domain")
    return _value(ReferralValue, fields)


def _inapp(fields: _Fields, query: str, event: Event, policy: Policy) -> InAppValue:
    params = {} if event.params == NO_PARAMS else decode_texts(query)
    adid, gadid, network = (_last(params.get(name)) for name in ("adid", "gadid", "network"))
    address = None if policy.ip_privacy == "none" else address_of(event.ip)
    keys = lookup_keys(adid or gadid, address, fields["platform"])
    return InAppValue(
        **fields,
        event=event.path.removeprefix("/t/").lstrip("/"),
        path=event.path,
        adid=adid,
        gadid=gadid,
        network=network,
        lookup_key=keys[0] if keys else None,
        lookup_keys=keys,
        params=params,
    )


def _anonymous(value: EventValue) -> EventValue:
    identifying = _IDENTIFYING.intersection(value.__struct_fields__)
    return msgspec.structs.replace(value, **dict.fromkeys(identifying))


def _time_of(clicked_at: str | None, seconds: int) -> tuple[str, int]:
    """Give the collector's time, which must fall into the line's second, else that second's beginning.

    As RFC 3339, and in milliseconds.
    """
    if clicked_at and len(clicked_at) == _TIME_LETTERS and clicked_at.isascii():
        milliseconds = clicked_at[20:23]
        if milliseconds.isdigit() and clicked_at == f"{utc_seconds(seconds)}.{milliseconds}Z":
            return clicked_at, seconds * 1000 + int(milliseconds)  # as the collector writes it
    at_ms = milliseconds_of(clicked_at, seconds)
    return utc_time(at_ms), at_ms


def _number(text: str | None) -> int | None:
    return int(text) if text and len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit() else None


def _last(value: Text) -> str | None:
    return value[-1] if isinstance(value, list) else value
