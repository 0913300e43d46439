"""Event → Record: place, device, bot, visitor, mask. Pure: the clock, the batch and the look-ups are given."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from collector.event import (
    CLICK_PATH,
    CLICKS,
    ORPHAN_PATH,
    ORPHANS,
    REFERRAL_PATH,
    REFERRALS,
    Event,
    Value,
    decode_params,
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
    CONTENT_TYPES,
    ClickValue,
    EventValue,
    InAppValue,
    OrphanValue,
    Params,
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
_TYPE_OF_TOPIC: Final = {CLICKS: "click", REFERRALS: "referral", ORPHANS: "orphan"}

_UTM: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_CLICK_TEXTS: Final = (
    *("slug", "referer", "trigger", *_UTM, "ad", "adgroup", "adid", "attr_window_from", "attr_window_till"),
    *(
        "campaign",
        "click",
        "created_at",
        "idfa_comb",
        "lookup_key",
        "network",
        "partner_data",
        "redirect_url",
        "reqparams",
    ),
)
_IDENTIFYING: Final = frozenset(
    {"ip", "visitor_id", "adid", "gadid", "idfa_comb", "click", "partner_data", "lookup_key", "lookup_keys"}
) | frozenset({"referer", "params", "reqparams"})
"""What is null in Kafka for a visitor whose wish not to be tracked is honoured."""

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


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


@dataclass(frozen=True, slots=True)
class Agent:
    """What a user agent and the collector's signals say, in the words of the event."""

    text: str
    columns: Mapping[str, str | None]


def enrich(
    event: Event, source: Source, *, now_ms: int, place_of: Callable[[str], Place], policy: Policy
) -> Record | None:
    """Give the record of an event, or None for a bot's under BOTS=drop.

    Missing places and hopeless user agents are null fields, never errors.
    """
    event_type = _TYPES.get((event.topic, event.path))
    params = decode_params(event.params)
    ours = (
        {name.decode("utf-8", "replace"): _text(value) for name, value in params.items()}
        if event_type
        else {}
    )
    event_type = event_type or _TYPE_OF_TOPIC.get(event.topic, "inapp")

    signals = frozenset((ours.get("signals") or "").split(",")) - {""}
    agent = agent_of(event.user_agent, signals)
    event_id = ours.get("event_id") or ""
    if not _UUID.fullmatch(event_id):
        event_id = source.event_id()
    at_ms = _milliseconds(ours.get("clicked_at"), event.at)

    fields: dict[str, Any] = {
        "schema": f"{event_type}/1",
        "event_id": event_id,
        "event_type": event_type,
        "clicked_at": utc_time(at_ms),
        "user_agent": agent.text,
        "klag_ms": max(now_ms - at_ms, 0),
        **agent.columns,
        **_whereabouts(event, signals, place_of, policy),
    }
    match event_type:
        case "click":
            value: EventValue = _click(fields, ours, params, policy)
        case "referral":
            value = _referral(fields, ours)
        case "orphan":
            value = _orphan(fields, ours, event)
        case _:
            value = _inapp(fields, params, event, policy)

    is_bot = agent.columns["bot_class"] is not None
    topic = event.topic
    if is_bot and topic in (CLICKS, REFERRALS):
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
        headers=cloud_event_headers(
            topic, event_type, event_id, value.clicked_at, CONTENT_TYPES[policy.value_format]
        ),
    )


@lru_cache(maxsize=16_384)  # a day's agents of a large site; about 2 KB each, 32 MB in all
def _known_agent(user_agent: bytes, signals: frozenset[str]) -> Agent:
    device = device_of(user_agent)
    bot = bot_of(user_agent, signals)
    return Agent(
        text=user_agent.decode("utf-8", "replace"),
        columns={
            "browser": device.browser,
            "os": device.os,
            "device": device.device,
            "device_name": device.device_name,
            "platform": platform_of(user_agent) or None,
            "bot_name": bot.name if bot else None,
            "bot_class": bot.class_ if bot else None,
            "bot_reason": bot.reason if bot else None,
        },
    )


_LONGEST_KNOWN_AGENT: Final = 1024
"""Longer ones are rare and mostly hostile: they are looked at each time, so that they cannot fill the memory."""


def agent_of(user_agent: bytes, signals: frozenset[str]) -> Agent:
    """Look at a user agent, once for each that is met often."""
    know = _known_agent if len(user_agent) <= _LONGEST_KNOWN_AGENT else _known_agent.__wrapped__
    return know(user_agent, signals)


def _whereabouts(
    event: Event, signals: frozenset[str], place_of: Callable[[str], Place], policy: Policy
) -> dict[str, str | None]:
    """Place and visitor by the full address, which is masked only then."""
    address = address_of(event.ip)
    if address == "0.0.0.0":  # noqa: S104 (so the collector says that nobody knows)
        address = None
    keys_are_kept = policy.ip_privacy != "none"  # who tries all addresses turns a key made of one back
    key = policy.visitor_key(event.at) if policy.visitor_key else None
    place = place_of(address) if address and "anonymous_ip" not in signals else NOWHERE
    return {
        "visitor_id": visitor_id(address, event.user_agent, event.at, key)
        if address and keys_are_kept
        else None,
        "ip": _kept_address(address, policy) if address else None,
        "country": place.country,
        "region": place.region,
        "city": place.city,
    }


def _kept_address(address: str, policy: Policy) -> str | None:
    match policy.ip_privacy:
        case "full":
            return address
        case "none":
            return None
        case "mask":
            return masked(address)


def _click(
    fields: dict[str, Any], ours: Mapping[str, str | None], params: dict[bytes, Value], policy: Policy
) -> ClickValue:
    link_id = _number(ours.get("campaign_link_id"))
    texts = _taken(ours, _CLICK_TEXTS)
    if policy.ip_privacy == "none" and texts["idfa_comb"] is None:
        texts["lookup_key"] = None
    return ClickValue(
        **fields,
        **texts,
        link_id=link_id,
        campaign_link_id=link_id,
        user_id=_number(ours.get("user_id")),
        params=_params(_last(params.get(b"reqparams"))) if ours else _texts(params),
    )


def _referral(fields: dict[str, Any], ours: Mapping[str, str | None]) -> ReferralValue:
    texts = ("domain", "registrable_domain", "host", "path", *_UTM)
    return ReferralValue(**fields, **_taken(ours, texts), referer=ours.get("domain"))


def _orphan(fields: dict[str, Any], ours: Mapping[str, str | None], event: Event) -> OrphanValue:
    texts = ("path", "reason", "redirect_url", "referer")
    query = ours.get("reqparams") if ours else event.params.decode("utf-8", "replace")
    return OrphanValue(**fields, **_taken(ours, texts), params=_params((query or "").encode()))


def _inapp(fields: dict[str, Any], params: dict[bytes, Value], event: Event, policy: Policy) -> InAppValue:
    adid, gadid, network = (_text(params.get(name)) for name in (b"adid", b"gadid", b"network"))
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
        params={} if event.params == b"p" else _texts(params),
    )


def _anonymous(value: EventValue) -> EventValue:
    identifying = _IDENTIFYING.intersection(value.__struct_fields__)
    return msgspec.structs.replace(value, **dict.fromkeys(identifying))


def _milliseconds(clicked_at: str | None, seconds: int) -> int:
    """Read the collector's time, which must fall into the line's second; else the second's beginning."""
    try:
        at = datetime.fromisoformat(clicked_at or "")
    except ValueError:
        return seconds * 1000
    milliseconds = round(at.timestamp() * 1000) if at.tzinfo else 0
    return milliseconds if milliseconds // 1000 == seconds else seconds * 1000


def _number(text: str | None) -> int | None:
    return int(text) if text and _DIGITS.fullmatch(text) else None


def _taken(ours: Mapping[str, str | None], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: ours.get(name) for name in names}


def _last(value: Value) -> bytes | None:
    return value[-1] if isinstance(value, list) else value


def _text(value: Value) -> str | None:
    """Give the last value of a key; bytes that are not UTF-8 become U+FFFD, here only."""
    last = _last(value)
    return None if last is None else last.decode("utf-8", "replace")


def _params(query: bytes | None) -> Params:
    return _texts(decode_params(query or b""))


def _texts(params: dict[bytes, Value]) -> Params:
    return {
        name.decode("utf-8", "replace"): [_text(one) for one in value]
        if isinstance(value, list)
        else _text(value)
        for name, value in params.items()
    }
