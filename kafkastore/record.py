"""The Kafka value: one flat JSON object a type, every key always there, in the order consumers read them."""

from functools import cache
from typing import Final, Literal

import msgspec

ValueFormat = Literal["json", "adtekio"]

Params = dict[str, str | list[str | None] | None]


class Record(msgspec.Struct, frozen=True, gc=False):
    """What goes to Kafka."""

    topic: str
    """Without the prefix."""
    key: bytes | None
    value: bytes
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


class ClickValue(msgspec.Struct, frozen=True, gc=False):
    """A click, as `click/1`."""

    schema: str
    event_id: str
    event_type: str
    clicked_at: str
    link_id: int | None
    slug: str | None
    user_id: int | None
    visitor_id: str | None
    ip: str | None
    country: str | None
    region: str | None
    city: str | None
    referer: str | None
    trigger: str | None
    user_agent: str
    browser: str | None
    os: str | None
    device: str | None
    device_name: str | None
    platform: str | None
    bot_name: str | None
    bot_class: str | None
    bot_reason: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_term: str | None
    utm_content: str | None
    ad: str | None
    adgroup: str | None
    adid: str | None
    attr_window_from: str | None
    attr_window_till: str | None
    campaign: str | None
    campaign_link_id: int | None
    click: str | None
    created_at: str | None
    idfa_comb: str | None
    lookup_key: str | None
    network: str | None
    partner_data: str | None
    redirect_url: str | None
    reqparams: str | None
    params: Params | None
    klag_ms: int


class ReferralValue(msgspec.Struct, frozen=True, gc=False):
    """A page view that came from another host, as `referral/1`."""

    schema: str
    event_id: str
    event_type: str
    clicked_at: str
    domain: str | None
    registrable_domain: str | None
    host: str | None
    path: str | None
    visitor_id: str | None
    ip: str | None
    country: str | None
    region: str | None
    city: str | None
    referer: str | None
    user_agent: str
    browser: str | None
    os: str | None
    device: str | None
    device_name: str | None
    platform: str | None
    bot_name: str | None
    bot_class: str | None
    bot_reason: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_term: str | None
    utm_content: str | None
    klag_ms: int


class InAppValue(msgspec.Struct, frozen=True, gc=False):
    """An event that an app reported, as `inapp/1`."""

    schema: str
    event_id: str
    event_type: str
    event: str
    clicked_at: str
    path: str
    adid: str | None
    gadid: str | None
    network: str | None
    lookup_key: str | None
    lookup_keys: list[str] | None
    visitor_id: str | None
    ip: str | None
    country: str | None
    region: str | None
    city: str | None
    user_agent: str
    browser: str | None
    os: str | None
    device: str | None
    device_name: str | None
    platform: str | None
    bot_name: str | None
    bot_class: str | None
    bot_reason: str | None
    params: Params | None
    klag_ms: int


class OrphanValue(msgspec.Struct, frozen=True, gc=False):
    """A visit whose link is not there, or not now, as `orphan/1`."""

    schema: str
    event_id: str
    event_type: str
    clicked_at: str
    path: str | None
    reason: str | None
    redirect_url: str | None
    visitor_id: str | None
    ip: str | None
    country: str | None
    region: str | None
    city: str | None
    referer: str | None
    user_agent: str
    browser: str | None
    os: str | None
    device: str | None
    device_name: str | None
    platform: str | None
    bot_name: str | None
    bot_class: str | None
    bot_reason: str | None
    params: Params | None
    klag_ms: int


EventValue = ClickValue | ReferralValue | InAppValue | OrphanValue

encode_value = msgspec.json.Encoder().encode


def cloud_event_headers(
    topic: str, event_type: str, event_id: str, time: str, value_format: ValueFormat
) -> list[tuple[str, bytes]]:
    """Give the headers of CloudEvents 1.0 in Kafka's binary content mode."""
    return [
        _VERSION,
        ("ce_id", event_id.encode()),
        _source(topic),
        _TYPES[event_type],
        ("ce_time", time.encode()),
        _CONTENT_TYPES[value_format],
    ]


_VERSION: Final = ("ce_specversion", b"1.0")
_TYPES: Final = {
    name: ("ce_type", f"onward.{name}".encode()) for name in ("click", "referral", "inapp", "orphan")
}
_CONTENT_TYPES: Final = {
    "json": ("content-type", b"application/json"),
    "adtekio": ("content-type", b"text/plain"),
}


@cache  # topics are few: they are settings
def _source(topic: str) -> tuple[str, bytes]:
    return ("ce_source", f"/onward/{topic}".encode())
