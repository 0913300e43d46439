"""The URL a visitor is sent to: the link's target, with what the link asks to be put into it. Pure.

Most targets leave byte for byte as recorded. Nothing here can change a target's scheme or authority: placeholders
are filled only behind them, and everything a request brings is percent-encoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_from_bytes, urlsplit

from collector.click import UTM, Visit, adid_of, utm_of
from collector.event import Params, decode_query, encode_query
from links.link import Link

_PLACEHOLDER: Final = re.compile(r"\{(click_id|campaign|adgroup|ad|network|platform|adid|click)\}")
_SCHEME_AND_AUTHORITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://[^/?#]*)?")
_APP_STORE_HOSTS: Final = frozenset({"apps.apple.com", "itunes.apple.com"})
_PLAY_HOST: Final = "play.google.com"

_LONGEST_CAMPAIGN_TOKEN: Final = 40
"""Apple takes 40 characters of `ct` (App Store Connect, "campaign links")."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What may be put into a target; None where it is not known."""

    click_id: str
    """The event id."""
    platform: str
    adid: bytes | None
    click: bytes | None
    utm: Mapping[str, bytes]
    """The event's UTMs: the link's, else the request's."""
    params: Params
    """The request's query, decoded."""


def target_of(link: Link, visit: Visit, platform: str, hint: str = "") -> str | None:
    """Give the URL for this visitor, or None if the link has none for the platform.

    The hint (of Sec-CH-UA-Platform) counts where the user agent tells no platform.
    """
    target = link.target(platform or hint)
    # Few links ask for more than the target as it is recorded; they alone pay for it.
    if target is None or not (link.forward_query or link.store_referrer or "{" in target):
        return target
    last = dict(visit.params)
    facts = Facts(
        visit.event_id, platform, adid_of(last), last.get(b"click"), utm_of(link, last), visit.params
    )
    return decorated(link, target, facts)


def decorated(link: Link, target: str, facts: Facts) -> str:
    """Give the target as this visitor gets it."""
    if "{" in target:
        target = _filled(link, target, facts)
    if link.forward_query and link.mode == "redirect" and facts.params:  # a proxy hands the whole query on
        target = _with_params(target, facts.params)
    if link.store_referrer:
        target = _with_store_referrer(link, target, facts)
    return target


def _filled(link: Link, target: str, facts: Facts) -> str:
    """Fill the placeholders behind the authority; unknown ones stay."""
    values = {
        "click_id": facts.click_id.encode(),
        "campaign": _bytes(link.campaign),
        "adgroup": _bytes(link.adgroup),
        "ad": _bytes(link.ad),
        "network": _bytes(link.network),
        "platform": facts.platform.encode(),
        "adid": facts.adid or b"",
        "click": facts.click or b"",
    }
    authority = _SCHEME_AND_AUTHORITY.match(target)
    end = authority.end() if authority else len(target)
    filled = _PLACEHOLDER.sub(lambda found: quote_from_bytes(values[found[1]], safe=""), target[end:])
    return target[:end] + filled


def _with_params(target: str, params: Params) -> str:
    """Put params over those of the same name in the target's query; the others stay as recorded."""
    base, fragment_mark, fragment = target.partition("#")
    path, _, query = base.partition("?")
    names = {name for name, _ in params}
    kept = [part for part in query.split("&") if part and _name(part) not in names]
    merged = "&".join([*kept, *(encode_query([pair]).decode() for pair in params)])
    return f"{path}?{merged}{fragment_mark}{fragment}"


def _with_store_referrer(link: Link, target: str, facts: Facts) -> str:
    """Tell the store where the visitor came from, in the store's own way."""
    parts = urlsplit(target)
    host = (parts.hostname or "").lower()
    if parts.scheme == "market" or host == _PLAY_HOST:
        recorded = dict(decode_query(parts.query.encode())).get(b"referrer") or b""
        ours = [(name.encode(), facts.utm[name]) for name in UTM if name in facts.utm]
        ours.append((b"click_id", facts.click_id.encode()))
        names = {name for name, _ in ours}
        others = [pair for pair in decode_query(recorded) if pair[0] not in names]
        return _with_params(target, [(b"referrer", encode_query([*others, *ours]))])
    if host in _APP_STORE_HOSTS:
        recorded_names = {name for name, _ in decode_query(parts.query.encode())}
        campaign = facts.utm.get("utm_campaign") or _bytes(link.campaign)
        token = campaign.decode("utf-8", "replace")[:_LONGEST_CAMPAIGN_TOKEN].encode()
        wanted = [(b"ct", token), (b"mt", b"8")]
        missing = [(name, value) for name, value in wanted if value and name not in recorded_names]
        return _with_params(target, list(missing)) if missing else target
    return target


def _name(part: str) -> bytes:
    return decode_query(quote(part, safe="%+&=;").encode())[0][0]


def _bytes(text: str | None) -> bytes:
    return (text or "").encode()
