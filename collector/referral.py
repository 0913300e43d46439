"""Who sent this visitor → Event. Pure: the clock and the event id are given.

Of the page a visitor came from, the host's name is kept and nothing else: the rest of that URL is cut off before
anything looks at it.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from publicsuffixlist import PublicSuffixList

from collector.click import UTM, Visit
from collector.event import REFERRAL_PATH, REFERRALS, Event, quoted, quoted_text, utc_time
from collector.referer import referring_host

_BEFORE_PATH: Final = re.compile(r"\s*(?P<scheme>[A-Za-z-]+)://(?P<authority>[^/?#\\]+)")
"""Browsers take a backslash for a slash."""

_LONGEST_HOST: Final = 1024
"""A name has 253 characters in A-labels; in other alphabets fewer, but up to 9 bytes each when percent-encoded."""

_UTM: Final = sorted(UTM)

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Referrer:
    """Where a visitor came from."""

    domain: str | None
    """The host's name in A-labels, its address, or an app's package; None: from nowhere we know."""
    registrable_domain: str | None = None
    """What somebody could register: example.co.uk of sub.example.co.uk. None for addresses and apps."""


NOWHERE: Final = Referrer(None)


@dataclass(frozen=True, slots=True)
class Referral:
    """A page view that came from elsewhere."""

    visit: Visit
    referrer: Referrer
    host: str | None
    """The page's; None if none was named that is one."""
    path: str
    """The page's, as requested, without the query."""

    def event(self) -> Event:
        """Give the event; its params in byte order, what is empty left out."""
        visit = self.visit
        texts = {
            "clicked_at": utc_time(visit.at_ms),
            "domain": self.referrer.domain,
            "event_id": visit.event_id,
            "host": self.host,
            "path": self.path,
            "registrable_domain": self.referrer.registrable_domain,
            "signals": visit.signals,
        }
        params = [f"{name}={quoted_text(value)}" for name, value in texts.items() if value]
        if visit.params:
            last = dict(visit.params)
            params += [f"{name}={quoted(value)}" for name in _UTM if (value := last.get(name.encode()))]
        line = "&".join(params).encode()
        return Event(visit.ip, visit.seconds, REFERRALS, REFERRAL_PATH, line, visit.user_agent)


def is_page_view(
    method: str, path: str, headers: Mapping[str, str], status: int | None, content_type: str = ""
) -> bool:
    """Tell whether a request was for a page, by its answer's status and type; `status` None: there is no answer.

    Where an answer does not say what it is (304, none), the request must have asked for a document.
    """
    if method != "GET":
        return False
    if status == HTTPStatus.OK:
        return content_type.partition(";")[0].strip().lower() == "text/html"
    return status in (None, HTTPStatus.NOT_MODIFIED) and _asks_for_a_document(path, headers)


def _asks_for_a_document(path: str, headers: Mapping[str, str]) -> bool:
    wanted = headers.get("Sec-Fetch-Dest")
    if wanted is not None:
        return wanted == "document"
    return "text/html" in headers.get("Accept", "").lower() or path in ("/", "/index.html")


def arrival_of(
    headers: Mapping[str, str], host: str | None, own_hosts: Collection[str], *, direct: bool
) -> Referrer | None:
    """Give where the visitor of a page of `host` comes from; None: from our own pages.

    From nowhere counts only with `direct`, and not where the browser says that it was a page of ours.
    """
    referer = headers.get("Referer")
    referrer = referrer_of(referer) if referer else None
    if referrer is None:
        return NOWHERE if direct and headers.get("Sec-Fetch-Site") != "same-origin" else None
    return None if referrer.domain == host or referrer.domain in own_hosts else referrer


def referrer_of(referer: str) -> Referrer | None:
    """Give the sender that a Referer names; None for what is no http, https, android-app or ios-app URL."""
    match = _BEFORE_PATH.match(referer)
    if match is None:
        return None
    host = match["authority"].rpartition("@")[2].rstrip()
    return _referrer(match["scheme"].lower(), host) if len(host) <= _LONGEST_HOST else None


@lru_cache(maxsize=1024)  # of a few hundred bytes each
def host_name(named: str) -> str | None:
    """Give a host as referrers name it: `Bücher.example:80` → `xn--bcher-kva.example`; None for what is none."""
    if named.count(":") > 1 and not named.startswith("["):
        named = f"[{named}]"
    referrer = referrer_of(f"http://{named}")
    return referrer.domain if referrer and not set(named) & set("/?#\\@") else None


@lru_cache(
    maxsize=2048
)  # 4 MB at most; what costs 20 µs costs less than one where a site has a few hundred senders
def _referrer(scheme: str, host: str) -> Referrer | None:
    domain = referring_host(f"{scheme}://{host}")
    if domain is None:
        return None
    if _is_address(domain):
        return Referrer(domain)
    if not _NAME.fullmatch(domain):
        return None
    if scheme not in ("http", "https"):
        return Referrer(
            domain
        )  # a package's name reads from the top: android.gm is nobody in com.google.android.gm
    if domain.rpartition(".")[2].isdecimal():
        return None  # an address that is none, or one in a spelling that browsers do not send
    return Referrer(domain, suffixes().privatesuffix(domain))


def _is_address(domain: str) -> bool:
    try:
        ip_address(domain)
    except ValueError:
        return False
    return True


@cache
def suffixes() -> PublicSuffixList:
    """Give the public suffix list that the library brings: read once, a quarter of a second and 2 MB."""
    return PublicSuffixList()
