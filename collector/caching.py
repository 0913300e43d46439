"""What headers say about keeping an answer: RFC 9111, as far as one page in memory needs it. Pure.

In doubt nothing is shared: whatever could be meant for one visitor is kept for none.
"""

import re
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from multidict import CIMultiDict

from collector.upstream import Headers

MOST_STALE_SECONDS: Final = 7 * 86_400.0
"""A page that was confirmed last week is better than none; `stale-if-error` says otherwise (RFC 5861)."""

_DIRECTIVE: Final = re.compile(r'\s*([^\s=,;"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,]*))?\s*(?:,|\Z)')

_CODINGS: Final = "accept-encoding"
_NOT_ACCEPTED: Final = re.compile(r"q=0(?:\.0*)?")

_PERSONAL: Final = frozenset(
    {"*", "authorization", "cookie", "forwarded", "referer", "x-forwarded-for", "x-real-ip"}
)
"""An answer that varies with one of these is for one visitor."""

_REWRITING: Final = (
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Host",
)
"""Headers by which a request for one page can, at some sites, be one for another: no other visitor shall get that."""

_OF_THE_BODY: Final = frozenset({"content-length", "content-encoding", "content-type", "content-range"})
"""What a 304 may say, but not of the body that we have."""

_TRACKING: Final = re.compile(
    r"(?:utm_[a-z_]+|gclid|dclid|fbclid|msclkid|ttclid|twclid|yclid|gbraid|wbraid|gad_source|mc_[ce]id|igshid)"
    r"(?:=[^;]*)?"  # some sites take what follows a semicolon for another parameter
)
"""Parameters by which others mark their links; to the site itself they mean the same page."""


def page_of(path: str, query: str) -> str:
    """Give the name of a page: its path and query, without what only says where the visitor comes from."""
    if not query:
        return path
    kept = "&".join(each for each in query.split("&") if not _TRACKING.fullmatch(each))
    return f"{path}?{kept}" if kept else path


def may_come_from_memory(method: str, headers: Headers) -> bool:
    """Tell whether a request can be answered with a page that others got."""
    return (
        method in ("GET", "HEAD")
        and "Authorization" not in headers
        and "Range" not in headers
        and "If-Match" not in headers
        and "If-Unmodified-Since" not in headers
        and "Upgrade" not in headers
    )


def wants_the_newest(headers: Headers) -> bool:
    """Tell whether a visitor asks to look again: by a browser's button to reload."""
    if "Cache-Control" not in headers and "Pragma" not in headers:
        return False
    asked = directives(headers)
    return "no-cache" in asked or asked.get("max-age") == "0" or "no-cache" in headers.get("Pragma", "")


def may_be_kept(asked: Headers, headers: Headers) -> bool:
    """Tell whether an answer to `asked` may be kept for others."""
    said = directives(headers)
    if "no-store" in said or "private" in said or "Set-Cookie" in headers:
        return False
    if _PERSONAL.intersection(vary_of(headers)):
        return False
    if any(name in asked for name in _REWRITING):
        return False
    return "Cookie" not in asked or is_public(headers)


def is_public(headers: Headers) -> bool:
    """Tell whether an answer is the same for visitors who have a cookie: only if it says so itself."""
    said = directives(headers)
    return "public" in said or "s-maxage" in said


def fresh_seconds(headers: Headers) -> float:
    """Give for how long an answer needs no second look; 0 where it does not say: we do not guess."""
    said = directives(headers)
    if "no-cache" in said:
        return 0
    for name in ("s-maxage", "max-age"):
        if name in said:
            return _seconds(said[name]) - age_of(headers)
    if "Expires" in headers and "Date" in headers:
        try:
            expires, date = (parsedate_to_datetime(headers[name]) for name in ("Expires", "Date"))
            return (expires - date).total_seconds() - age_of(headers)
        except (ValueError, TypeError):  # `Expires: 0`; a date with a zone and one without
            return 0
    return 0


def stale_seconds(headers: Headers) -> float:
    """Give for how long after its last confirmation an answer may stand in for one that cannot be had."""
    said = directives(headers)
    if "stale-if-error" in said:
        return min(_seconds(said["stale-if-error"]) + max(fresh_seconds(headers), 0), MOST_STALE_SECONDS)
    return MOST_STALE_SECONDS


def age_of(headers: Headers) -> float:
    """Give how old an answer was when it came."""
    return _seconds(headers.get("Age", ""))


def vary_of(headers: Headers) -> tuple[str, ...]:
    """Give the names, lower case and sorted, of the request's headers on which an answer depends.

    Accept-Encoding is always one of them: nginx, as it comes, compresses without saying so.
    """
    names = ",".join(headers.getall("Vary", ())).lower().split(",")
    return tuple(sorted({_CODINGS, *(name.strip() for name in names)} - {""}))


def variant_of(vary: tuple[str, ...], asked: Headers) -> tuple[str, ...]:
    """Give what a request says in the headers that count."""
    return tuple(
        [codings_of(asked.get(name, "")) if name == _CODINGS else asked.get(name, "") for name in vary]
    )


@lru_cache(maxsize=256)  # of 16 KiB each at most; browsers have half a dozen ways to say it
def codings_of(accepted: str) -> str:
    """Give the codings that a visitor takes, however they were named: `gzip;q=1, BR, x;q=0` → `br gzip`."""
    codings = set()
    for each in accepted.lower().split(","):
        name, _, weight = each.replace(" ", "").partition(";")
        if not _NOT_ACCEPTED.fullmatch(weight):
            codings.add(name)
    return " ".join(sorted(codings - {"", "identity"}))


def confirmed(headers: Headers, by: Headers) -> CIMultiDict[str]:
    """Give an answer's headers after a 304 that says these: the new ones over the old."""
    renewed = CIMultiDict(headers)
    renewed.popall("Age", None)
    new = CIMultiDict((name, value) for name, value in by.items() if name.lower() not in _OF_THE_BODY)
    for name in set(new):
        renewed.popall(name, None)
    renewed.extend(new)
    return renewed


def directives(headers: Headers) -> dict[str, str]:
    """Give what Cache-Control says: names in lower case, values without quotes, "" for none."""
    text = ",".join(headers.getall("Cache-Control", ()))
    return {match[1].lower(): (match[2] or "").strip('"') for match in _DIRECTIVE.finditer(text)}


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() and len(text) <= 10 else 0.0  # noqa: PLR2004 (RFC 9111: 2³¹ will do)
