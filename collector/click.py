"""Who clicked what, when → Event. Pure: the clock, the event id and the platform are given."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from hashlib import md5
from operator import itemgetter
from typing import Final, Literal

import msgspec

from collector.event import (
    CLICK_PATH,
    CLICKS,
    ORPHAN_PATH,
    ORPHANS,
    Event,
    Params,
    Value,
    encode_params,
    encode_query,
    given,
    quoted,
    quoted_text,
    utc_seconds,
    utc_time,
)
from links.link import Link

OrphanReason = Literal["unknown", "not_started", "expired", "disabled"]

_ADVERTISING: Final = frozenset({b"adid", b"idfa", b"gadid", b"idfa_md5", b"idfa_sha1"})
_NOT_IN_REQPARAMS: Final = _ADVERTISING | {b"click", b"partner_data"}
UTM: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")

_UTM_AS_SENT: Final = frozenset(name.encode() for name in UTM)
_NO_DIGEST: Final = md5(usedforsecurity=False)
_UUID_WITHOUT_DASHES: Final = re.compile(rb"[0-9A-Fa-f]{32}")
_UUID: Final = re.compile(rb"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")
_MD5: Final = re.compile(rb"[0-9A-Fa-f]{32}")
_SHA1: Final = re.compile(rb"[0-9A-Fa-f]{40}")


# Structs, since a frozen dataclass takes ten times as long to make: 1.2 µs each (measured).


class Visit(msgspec.Struct, frozen=True, gc=False):
    """One request, as far as its event is concerned."""

    event_id: str
    """UUIDv7."""
    at_ms: int
    """Unix time in milliseconds; the one reading of the clock this event has."""
    ip: str
    user_agent: bytes
    params: Params = []
    """The request's query, decoded."""
    referer: str | None = None
    """As far as it may be kept."""
    signals: str = ""

    @property
    def seconds(self) -> int:
        """The time in whole seconds."""
        return self.at_ms // 1000


class Click(msgspec.Struct, frozen=True, gc=False):
    """A visit that found its link."""

    link: Link
    visit: Visit
    platform: str
    redirect_url: str | None
    """What the visitor was answered; None if the link has no target and nothing stands in for it."""
    zone: tzinfo | None = None
    """Of the times as the original writes them; None: the process's own."""

    def event(self) -> Event:
        """Give the event: all sixteen of the original's params, and ours where they are not empty."""
        link, visit = self.link, self.visit
        last = dict(visit.params)
        adid, idfa_comb = _advertising_ids(last)
        seconds = visit.seconds
        window = link.attribution_window_idfa if idfa_comb else link.attribution_window_fingerprint
        at, till, utc = _times(seconds, window, self.zone)
        # In byte order of the names, once and for all: a dict, sorted and encoded, takes five times as long (67 µs).
        params = (
            f"ad{_named(link.ad)}&adgroup{_named(link.adgroup)}&adid{_given(adid)}"
            f"&attr_window_from={at}&attr_window_till{till}"
            f"&campaign{_named(link.campaign)}&campaign_link_id={link.id}"
            f"&click{_given(last.get(b'click'))}&clicked_at={utc}.{visit.at_ms % 1000:03d}Z"
            f"&created_at={at}&event_id={visit.event_id}&idfa_comb{_given(idfa_comb)}"
            f"&lookup_key={lookup_key(idfa_comb, visit.ip, self.platform)}&network{_named(link.network)}"
            f"&partner_data{_given(_first_present(last, b'partner_data', b'cb'))}"
            f"&redirect_url{given(self.redirect_url)}{_extra('referer', visit.referer)}"
            f"&reqparams={quoted(_reqparams(visit.params))}{_extra('signals', visit.signals)}"
            f"{_extra('slug', link.slug)}&trigger={'qr' if last.get(b'qr') == b'1' else 'link'}"
            f"&user_id{'' if link.user_id is None else f'={link.user_id}'}"
        )
        if utm := utm_of(link, last):
            params += "".join(f"&{name}={quoted(utm[name])}" for name in sorted(utm))
        return Event(visit.ip, seconds, CLICKS, CLICK_PATH, params.encode(), visit.user_agent)


class Orphan(msgspec.Struct, frozen=True, gc=False):
    """A visit whose link is not there, or not now."""

    visit: Visit
    path: str
    """As requested."""
    reason: OrphanReason
    redirect_url: str | None

    def event(self) -> Event:
        """Give the event; what is empty is left out."""
        visit = self.visit
        extras = {
            "clicked_at": utc_time(visit.at_ms),
            "event_id": visit.event_id,
            "path": self.path,
            "reason": self.reason,
            "redirect_url": self.redirect_url,
            "referer": visit.referer,
            "signals": visit.signals,
        }
        params: dict[str, Value] = {
            name: value.encode("utf-8", "surrogateescape") for name, value in extras.items() if value
        }
        if reqparams := _reqparams(visit.params):
            params["reqparams"] = reqparams
        return Event(visit.ip, visit.seconds, ORPHANS, ORPHAN_PATH, encode_params(params), visit.user_agent)


def lookup_key(idfa_comb: bytes | None, ip: str, platform: str) -> str:
    """Give the key by which an install finds its click: MD5 hex of the advertising id, else of ip and platform."""
    digest = _NO_DIGEST.copy()  # a new one asks OpenSSL for its MD5 first: a third more
    digest.update((idfa_comb or f"{ip}.{platform}".encode()).lower())
    return digest.hexdigest()


@lru_cache(
    maxsize=256
)  # clicks come in the order of time: a few seconds, times the attribution windows in use
def _times(seconds: int, window_minutes: int | None, zone: tzinfo | None) -> tuple[str, str, str]:
    """Give the time of a click, the end of its attribution window, and the time in UTC, as the line has them."""
    till = "" if window_minutes is None else f"={_local_time(seconds + 60 * window_minutes, zone)}"
    return _local_time(seconds, zone), till, quoted_text(utc_seconds(seconds))


def _local_time(seconds: int, zone: tzinfo | None) -> str:
    return quoted_text(datetime.fromtimestamp(seconds, UTC).astimezone(zone).isoformat(timespec="seconds"))


def _given(value: bytes | None) -> str:
    return "" if value is None else f"={quoted(value)}"


_named: Final = lru_cache(maxsize=1024)(given)
"""For what many links have in common."""


def _extra(name: str, value: str | None) -> str:
    """Give a param of ours, which is left out when it is empty."""
    return f"&{name}={quoted_text(value)}" if value else ""


def _first_present(params: Mapping[bytes, bytes | None], *names: bytes) -> bytes | None:
    """Give the first that has a value, be it empty; a bare key has none."""
    for name in names:
        if (value := params.get(name)) is not None:
            return value
    return None


def utm_of(link: Link, params: Mapping[bytes, bytes | None]) -> dict[str, bytes]:
    """Give the UTMs of a click: the link's, where it has none the request's."""
    of_link = (link.utm_source, link.utm_medium, link.utm_campaign, link.utm_term, link.utm_content)
    if not any(of_link) and _UTM_AS_SENT.isdisjoint(params):
        return {}
    found = (
        (name, text.encode() if text else params.get(name.encode()))
        for name, text in zip(UTM, of_link, strict=True)
    )
    return {name: value for name, value in found if value}


def adid_of(params: Mapping[bytes, bytes | None]) -> bytes | None:
    """Give the device's advertising id, dashed where dashes are missing, upper-cased."""
    adid = _first_present(params, b"adid", b"idfa", b"gadid")
    if adid is not None and _UUID_WITHOUT_DASHES.fullmatch(adid):
        adid = b"-".join((adid[:8], adid[8:12], adid[12:16], adid[16:20], adid[20:]))
    return None if adid is None else adid.upper()


def _advertising_ids(params: Mapping[bytes, bytes | None]) -> tuple[bytes | None, bytes | None]:
    """Give the device's advertising id, and the one to know it by: the id itself, else its MD5, else its SHA-1."""
    if _ADVERTISING.isdisjoint(params):
        return None, None  # as in nearly all clicks of the web
    adid = adid_of(params)
    if adid and _UUID.search(adid):
        return adid, adid
    for name, form in ((b"idfa_md5", _MD5), (b"idfa_sha1", _SHA1)):
        value = params.get(name)
        if value and form.search(value):
            return adid, value.lower()
    return adid, None


def _reqparams(query: Params) -> bytes:
    """Give every other request parameter as a query again, sorted by name, repeats in their order."""
    others = [pair for pair in query if pair[0] not in _NOT_IN_REQPARAMS]
    return encode_query(sorted(others, key=itemgetter(0))) if others else b""
