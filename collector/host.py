"""Which host a visitor asked for: the Host header's, or what a proxy that we trust says it was."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from aiohttp import hdrs
from multidict import istr

from process.at_once import AnyRequest

_FORWARDED_HOST: Final = istr("X-Forwarded-Host")
_LONGEST_KNOWN: Final = 128

Trusts = Callable[[str | None], bool]
"""Whether the operator trusts a peer with an address."""


def host_of(request: AnyRequest, trusts: Trusts) -> str:
    """Give the host, lower case, without its port; "" if none was named."""
    headers = request.headers
    forwarded = headers.get(_FORWARDED_HOST)
    named = forwarded if forwarded and trusts(peer_of(request)) else headers.get(hdrs.HOST, "")
    return bare_host(named)


def bare_host(named: str) -> str:
    """Give a host without port, brackets and case: `[::1]:80` → `::1`."""
    return (_known_bare_host if len(named) <= _LONGEST_KNOWN else _bare_host)(named)


def _bare_host(named: str) -> str:
    named = named.partition(",")[0].strip().lower()
    if named.startswith("["):
        return named[1:].partition("]")[0]
    return named.partition(":")[0].rstrip(".")


_known_bare_host: Final = lru_cache(maxsize=1024)(
    _bare_host
)  # those of ours are few; others' take 0.4 MB at most


def peer_of(request: AnyRequest) -> str | None:
    """Give the address of the other end of the connection."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return peer[0] if peer else None
