"""A WebSocket of the web site: opened there first, then here, and message for message handed both ways."""

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, hdrs, web
from yarl import URL

from collector.relay import reason_of
from collector.upstream import UpstreamError
from process.tasks import end

ANSWER_SECONDS: Final = 25.0
"""For the site to open it."""

IDLE_SECONDS: Final = 300.0
"""Without a message, a ping included, in either direction: most pages ping twice a minute."""

CLOSE_SECONDS: Final = 1.0
"""For each end to say good-bye: a process that is told to stop waits for it too."""

LARGEST_MESSAGE_BYTES: Final = 1024**2
"""One each way is in memory: 2 MiB a socket at most."""

_HANDSHAKE: Final = frozenset(
    {"sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version"}
)

_HANDED_ON: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG})
_LEAVING: Final[tuple[int, bytes]] = (WSCloseCode.GOING_AWAY, b"")
_NOTHING_SAID: Final = 1005
_NO_TLS: Final = 1015

_Socket = web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool]


def asks_for_a_socket(request: web.BaseRequest) -> bool:
    """Tell whether a request wants to become a WebSocket."""
    return (
        request.method == hdrs.METH_GET
        and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
        and "upgrade" in request.headers.get(hdrs.CONNECTION, "").lower()
    )


async def tunnel(
    request: web.BaseRequest,
    http: aiohttp.ClientSession,
    url: URL,
    headers: Mapping[str, str],
    own_headers: Mapping[str, str],
) -> web.StreamResponse | None:
    """Hand messages on until one end has enough; None if the site has a page there and no WebSocket.

    `headers` are sent to the site, as `request_headers` gives them. Raises UpstreamError.
    """
    if not web.WebSocketResponse().can_prepare(request):
        raise UpstreamError(HTTPStatus.BAD_REQUEST, "bad-upgrade")
    named = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())).split(",")
    protocols = [name.strip() for name in named if name.strip()]
    sent = {name: value for name, value in headers.items() if name.lower() not in _HANDSHAKE}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            site = await http.ws_connect(
                url,
                headers=sent,
                protocols=protocols,
                autoping=False,
                decode_text=False,
                max_msg_size=LARGEST_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
            )
    except aiohttp.WSServerHandshakeError as error:
        if error.status < HTTPStatus.OK:
            raise UpstreamError(HTTPStatus.BAD_GATEWAY, "upstream-malformed") from error
        if error.status < HTTPStatus.BAD_REQUEST:
            return None
        raise UpstreamError(error.status, "upstream-refused") from error
    except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
        raise UpstreamError(*reason_of(error, request)) from error
    async with site:
        visitor = web.WebSocketResponse(
            autoping=False,
            decode_text=False,
            compress=False,
            max_msg_size=LARGEST_MESSAGE_BYTES,
            timeout=CLOSE_SECONDS,
            protocols=[site.protocol] if site.protocol else (),
        )
        visitor.headers.update(own_headers)
        await visitor.prepare(request)
        await _both_ways(visitor, site)
    return visitor


async def _both_ways(visitor: _Socket, site: _Socket) -> None:
    heard_at = time.monotonic()

    async def pump(source: _Socket, sink: _Socket) -> tuple[int, bytes]:
        """Hand messages on; give what the source says at its end."""
        nonlocal heard_at
        while True:
            message = await source.receive()
            heard_at = time.monotonic()
            if message.type not in _HANDED_ON:
                return _good_bye(source.close_code, message.extra)
            try:
                await sink.send_frame(message.data, message.type)
            except ConnectionError:
                return _LEAVING

    pumps = {asyncio.create_task(pump(visitor, site)), asyncio.create_task(pump(site, visitor))}
    code, words = _LEAVING
    try:
        while (rest := heard_at + IDLE_SECONDS - time.monotonic()) > 0:
            ended, _ = await asyncio.wait(pumps, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            if ended:
                code, words = ended.pop().result()
                break
    finally:
        await end(pumps)
        await asyncio.gather(*(socket.close(code=code, message=words) for socket in (visitor, site)))


def _good_bye(code: int | None, words: str | None) -> tuple[int, bytes]:
    """Give what can be said of a source's end: no code stands for one that was lost, or that said nothing."""
    if not code or code == _NOTHING_SAID:
        return WSCloseCode.OK, b""
    if code in (WSCloseCode.ABNORMAL_CLOSURE, _NO_TLS):
        return _LEAVING
    return code, (words or "").encode()
