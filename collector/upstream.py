"""Which headers pass between a visitor and an upstream, and how it is said that there is no answer. Pure.

Everything that is said from end to end passes; what is between two neighbours, and what proxies say about the
visitor, does not: the latter only in the caller's words.
"""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

MOST_RELAYS: Final = 3
"""A request that passed us this often goes in circles."""

_US: Final = "onward"
_LOOP: Final = "CDN-Loop"
"""RFC 8586. Not Via: nginx, as it comes, does not compress what a proxy asks for."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, 7.6.1, and those that name the connection's ends."""

_SAID_BY_PROXIES: Final = frozenset(
    {
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "cf-pseudo-ipv4",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-original-forwarded-for",
        "x-original-host",
        "x-real-ip",
    }
)
"""Whose request this is, and for which host: a stranger can write it too, so only the caller's word is sent."""


_NOT_SENT: Final = _HOP_BY_HOP | _SAID_BY_PROXIES | {"host", "expect"}
"""The last two: the upstream has a name of its own, and what is expected is answered here."""


class UpstreamError(Exception):
    """No answer, and why: nothing has been sent to the visitor."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"{status} {why}")
        self.status = status
        self.why = why


def request_headers(
    headers: Headers, sent_headers: Mapping[str, str], withheld: Collection[str] = ()
) -> CIMultiDict[str]:
    """Give the headers that are sent for a visitor's; raises UpstreamError for a request that goes in circles."""
    passed = [element.strip() for value in headers.getall(_LOOP, ()) for element in value.split(",")]
    if passed.count(_US) >= MOST_RELAYS:
        raise UpstreamError(HTTPStatus.LOOP_DETECTED, "relayed-in-circles")
    dropped = _NOT_SENT | _between_neighbours(headers) if "Connection" in headers else _NOT_SENT
    sent = CIMultiDict(
        [
            (name, value)
            for name, value in headers.items()
            if (lower := name.lower()) not in dropped
            and not lower.startswith("x-forwarded-")
            and lower not in withheld
        ]
    )
    sent.update(sent_headers)
    sent.add(_LOOP, _US)
    return sent


def end_to_end(headers: Headers) -> CIMultiDict[str]:
    """Give the headers without those that are between two neighbours, as `Connection` names them too."""
    dropped = _between_neighbours(headers) if "Connection" in headers else _HOP_BY_HOP
    return CIMultiDict([(name, value) for name, value in headers.items() if name.lower() not in dropped])


def _between_neighbours(headers: Headers) -> frozenset[str]:
    named = ",".join(headers.getall("Connection", ())).lower().split(",")
    return _HOP_BY_HOP.union(name.strip() for name in named)
