"""A target seen under a path of ours: what is fetched for a path, and what an answer means there. Pure.

A target's page runs as a page of our host. So whatever would reach beyond its own path is taken from its answers.
"""

import re
import string
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from multidict import CIMultiDict
from yarl import URL

from collector.upstream import Headers, UpstreamError

_PORTS: Final = {"http": 80, "https": 443}

_REST: Final = re.compile(r"(?:/[^?#]*)?")
_QUERY: Final = re.compile(r"[^#]*")
_UNWRITTEN: Final = re.compile(r"[^!-~]")
"""What no URL holds as it is: spaces, control characters, anything beyond ASCII."""

_LEAVES_ITS_PATH: Final = re.compile(r"\\|(?:^|/)\.\.?(?:[/;]|$)")
"""Browsers take a backslash for a slash; Java servers cut off what follows a `;` before they look for dots."""

_REFRESH: Final = re.compile(r"(?P<when>[0-9.]+\s*[;,]\s*(?:url\s*=\s*)?)(?P<url>.+)", re.IGNORECASE)

_NOT_RELAYED: Final = frozenset(
    {
        # policies for a whole host, most of them remembered
        "accept-ch",
        "alt-svc",
        "clear-site-data",
        "critical-ch",
        "expect-ct",
        "nel",
        "public-key-pins",
        "public-key-pins-report-only",
        "report-to",
        "service-worker-allowed",
        "set-login",
        "strict-transport-security",
        # orders to a proxy in front of the target: the one in front of us would carry them out
        "cdn-cache-control",
        "cloudflare-cdn-cache-control",
        "surrogate-control",
        "x-lighttpd-send-file",
        "x-sendfile",
        # a password asked for here would be one for our host, and is never handed on
        "www-authenticate",
        # says why we refuse, not the target
        "x-onward",
    }
)


@dataclass(frozen=True, slots=True)
class Mount:
    """Where visitors see a target."""

    base: str
    """`/slug`, or `/click/{id}/go`."""
    target: str
    """The URL, as decorated for this visitor."""
    takes_rest: bool = True
    """Whether the paths below `base` are the target's, too."""


def upstream_url(target: str, rest: str, query: str) -> URL:
    """Give the URL that is fetched: rest and query, as they were sent, behind the target's; raises UpstreamError.

    Whatever they are, scheme, authority and the beginning of the path stay the target's.
    """
    try:
        parts = urlsplit(target)
        authority = URL(f"{parts.scheme}://{parts.netloc}").raw_authority
    except ValueError:
        parts, authority = urlsplit(""), ""
    if parts.scheme not in _PORTS or not authority:
        raise UpstreamError(HTTPStatus.BAD_GATEWAY, "target-not-http")
    if not _REST.fullmatch(rest) or _UNWRITTEN.search(rest) or _leaves_its_path(rest):
        raise UpstreamError(HTTPStatus.BAD_REQUEST, "bad-path")
    if not _QUERY.fullmatch(query) or _UNWRITTEN.search(query):
        raise UpstreamError(HTTPStatus.BAD_REQUEST, "bad-query")
    path = quote(parts.path, safe=string.punctuation) or "/"
    path = path.removesuffix("/") + rest if rest else path
    queries = "&".join(each for each in (quote(parts.query, safe=string.punctuation), query) if each)
    return URL(f"{parts.scheme}://{authority}{path}{queries and '?'}{queries}", encoded=True)


def answer_headers(mount: Mount, asked: URL, rest: str, status: int, headers: Headers) -> CIMultiDict[str]:
    """Give the headers of an answer as our host may send them."""
    sent = CIMultiDict[str]()
    for name, value in headers.items():
        lower = name.lower()
        kept: str | None = value
        if lower in _NOT_RELAYED or lower.startswith("x-accel-"):
            continue
        if lower == "set-cookie":
            kept = scoped_cookie(value, mount.base)
        elif lower in {"location", "content-location"}:
            kept = seen_location(mount, asked, value)
        elif lower == "refresh" and (match := _REFRESH.fullmatch(value.strip())):
            url = seen_location(mount, asked, match["url"].strip("'\""))
            kept = url and match["when"] + url
        if kept is not None:
            sent.add(name, kept)
    if not rest or status in {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.PERMANENT_REDIRECT}:
        # Every click is to reach us, and a link may lead elsewhere tomorrow.
        sent["Cache-Control"] = "no-store"
    return sent


def seen_location(mount: Mount, asked: URL, location: str) -> str | None:
    """Give a URL of an answer as the visitor has to ask for it; None for one that no visitor is sent to.

    What is under the target is under the base; the rest of its host, and other hosts, are left to the visitor.
    """
    start = upstream_url(mount.target, "", "")
    try:
        url = urljoin(str(asked.with_user(None)), _as_browsers_read(location))
        parts = urlsplit(url)
        origin = (parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme))
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    top = start.raw_path.removesuffix("/")
    path = parts.path or "/"
    below = path[len(top) :] if path.startswith(top) else ""
    inside = path == start.raw_path or (mount.takes_rest and below.startswith("/"))
    if origin != (start.scheme, start.raw_host, start.port) or not inside or _leaves_its_path(below):
        return url
    query, own = parts.query, start.raw_query_string
    if f"{query}&".startswith(f"{own}&"):  # it will be put before the query again
        query = query.removeprefix(own).removeprefix("&")
    behind = f"{query and '?'}{query}{parts.fragment and '#'}{parts.fragment}"
    return f"{mount.base}{below if mount.takes_rest else ''}{behind}"


def scoped_cookie(cookie: str, base: str) -> str:
    """Give a Set-Cookie of a target as one of our host that no other link's target gets to see."""
    pair, *attributes = cookie.split(";")
    kept = [each for each in attributes if each.partition("=")[0].strip().lower() not in {"domain", "path"}]
    return ";".join([pair, *kept, f" Path={base}"])


def _leaves_its_path(path: str) -> bool:
    """Tell whether a server could take a path for another one; decoded twice, as by a server behind a server."""
    return _LEAVES_ITS_PATH.search(unquote(unquote(path))) is not None


def _as_browsers_read(url: str) -> str:
    """Give a URL of a header in ASCII, backslashes before the query as slashes."""
    ascii_url = quote(url.strip().encode("utf-8", "surrogateescape"), safe=string.punctuation)
    before = re.split(r"[?#]", ascii_url, maxsplit=1)[0]
    return before.replace("\\", "/") + ascii_url[len(before) :]
