"""Links in proxy mode: the target is fetched, and streamed to the visitor. No target leads where only we can go."""

import errno
import socket
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import hdrs, web

from collector.mount import Mount, answer_headers, upstream_url
from collector.public_address import is_public
from collector.relay import Bounds, open_upstreams, relay
from collector.upstream import UpstreamError
from process.protocol import WHY

_BOUNDS: Final = Bounds()
_NOT_SENT: Final = frozenset({"authorization"})
"""Browsers send what our host was told to every path of it: it is not the target's."""


class PrivateAddressError(OSError):
    """A target's name leads to an address that strangers must not reach through us."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "not a public address")


def open_proxy(*, private_allowed: bool) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    """Open what links in proxy mode fetch with; only public addresses are connected to, unless others are allowed."""
    return open_upstreams(None if private_allowed else _public_socket)


async def proxied(
    request: web.BaseRequest,
    http: aiohttp.ClientSession,
    mount: Mount,
    rest: str,
    *,
    own_headers: Mapping[str, str],
    sent_headers: Mapping[str, str],
    withheld: Collection[str] = (),
    bounds: Bounds = _BOUNDS,
) -> web.StreamResponse:
    """Answer a GET or HEAD of `mount.base + rest` (rest: "" or from its slash on) with what the target says.

    The other arguments are `relay`'s. Where the target gives no answer, or must not be asked: 4xx or 5xx, and why.
    """
    if request.headers.get("Service-Worker") == "script":
        # A worker would outlive the link, and one at `/slug` itself would answer for the whole host.
        return _refusal(HTTPStatus.FORBIDDEN, "no-service-workers", own_headers)
    try:
        asked = upstream_url(mount.target, rest, request.raw_path.partition("?")[2])
        return await relay(
            request,
            http,
            asked,
            own_headers=own_headers,
            sent_headers=sent_headers,
            withheld=_NOT_SENT.union(withheld),
            rewrite=lambda status, headers: answer_headers(mount, asked, rest, status, headers),
            bounds=bounds,
        )
    except UpstreamError as error:
        reason = error.__cause__
        if isinstance(reason, aiohttp.ClientConnectorError) and isinstance(
            reason.os_error, PrivateAddressError
        ):
            return _refusal(HTTPStatus.FORBIDDEN, "private-target", own_headers)
        return _refusal(error.status, error.why, own_headers)


def _refusal(status: int, why: str, own_headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, headers={hdrs.CACHE_CONTROL: "no-store", WHY: why, **own_headers})


def _public_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Give the socket for a connection: here is the very address, whatever a name led to before."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise PrivateAddressError
    return socket.socket(family, kind, protocol)
