"""One request, handed on to an upstream server, its answer streamed back: what is said end to end passes, untouched.

Until the upstream's headers are there, what goes wrong raises UpstreamError, and the caller may still answer. After
that an answer that cannot be completed is broken off (the visitor's connection is reset), never passed off as whole.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from collector.upstream import Headers, UpstreamError, end_to_end, request_headers
from process.protocol import LONGEST_HEADER_BYTES, LONGEST_LINE_BYTES, MOST_HEADERS

Rewrite = Callable[[int, Headers], CIMultiDict[str]]
"""From the upstream's status and end-to-end headers to those the visitor gets."""

MOST_CONNECTIONS: Final = 100
"""To all upstreams, per process. Each holds at most 128 KiB read and 64 KiB not yet written: some 20 MB."""

MOST_CONNECTIONS_PER_HOST: Final = 50
"""So that one slow upstream leaves room for the others."""

KEPT_IDLE_SECONDS: Final = 4.0
"""Below what servers keep (Node, uvicorn and Apache 5 s): they seldom close just as we send."""

NOBODY: Final = 499
"""nginx's word, in metrics, for an answer that its visitor did not wait for."""

_READ_BYTES: Final = 64 * 1024
"""aiohttp reads up to twice this ahead of the visitor."""

_LOOK_SECONDS: Final = 1.0
"""Between looks whether the visitor is still there: a server learns of it only when it writes."""

_SAID_BY_AIOHTTP: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)
"""What its client adds where a request has none: the visitor did not say it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one relayed request may cost."""

    connect_seconds: float = 5.0
    """To find the address, to wait for one of our connections, to connect, TLS included."""
    answer_seconds: float = 25.0
    """From the request's beginning, or the last of its body, to the answer's headers (Heroku's router waits 30)."""
    silence_seconds: float = 50.0
    """From one part of the answer to the next, read and written: for a slow upstream and a slow visitor alike."""
    whole_seconds: float = 600.0
    answer_bytes: int = 256 * 1024**2
    request_bytes: int = 16 * 1024**2


class _BodyTooLargeError(Exception):
    """The visitor sends more than is taken."""


class _HungUpError(aiohttp.ClientError):
    """The upstream closed the connection in place of an answer."""


_Send = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]


@asynccontextmanager
async def open_upstreams(
    socket_factory: aiohttp.SocketFactoryType | None = None,
    *,
    most: int = MOST_CONNECTIONS,
    most_per_host: int = MOST_CONNECTIONS_PER_HOST,
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the connections to upstreams: no cookies, no proxies of the environment, nothing asked twice."""
    connector = aiohttp.TCPConnector(
        limit=most,
        limit_per_host=most_per_host,
        keepalive_timeout=KEPT_IDLE_SECONDS,
        socket_factory=socket_factory,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=_SAID_BY_AIOHTTP,
        read_bufsize=_READ_BYTES,
        max_line_size=LONGEST_LINE_BYTES,
        max_field_size=LONGEST_HEADER_BYTES,
        max_headers=MOST_HEADERS,
        middlewares=(_once,),
    ) as http:
        yield http


async def relay(
    request: web.BaseRequest,
    http: aiohttp.ClientSession,
    url: URL,
    *,
    own_headers: Mapping[str, str],
    sent_headers: Mapping[str, str],
    withheld: Collection[str] = (),
    rewrite: Rewrite = lambda _status, headers: CIMultiDict(headers),
    bounds: Bounds = Bounds(),
) -> web.StreamResponse:
    """Answer `request` with what the upstream says at `url`: `asked`, and the answer handed on.

    `own_headers` are put over the answer's.
    """
    async with asked(
        request, http, url, sent_headers=sent_headers, withheld=withheld, bounds=bounds
    ) as answer:
        headers = rewrite(answer.status, answer.headers)
        headers.update(own_headers)
        await answer.hand_on(headers)
    return answer.response


class Answer:
    """What an upstream says: its beginning, and the rest on its way."""

    response: web.StreamResponse
    """What the visitor gets, from `hand_on` on."""

    def __init__(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        wait_for: Callable[[float], None],
        bounds: Bounds,
    ) -> None:
        self.status = upstream.status
        self.headers = end_to_end(upstream.headers)
        self.begun = False
        self.whole = False
        self._request = request
        self._upstream = upstream
        self._wait_for = wait_for
        self._bounds = bounds

    @property
    def ends_visibly(self) -> bool:
        """Whether a part can be told from the whole."""
        upstream = self._upstream
        return upstream.content_length is not None or hdrs.TRANSFER_ENCODING in upstream.headers

    async def hand_on(self, headers: CIMultiDict[str], copy: Callable[[bytes], None] | None = None) -> None:
        """Send it to the visitor, as fast as the slower of the two is; `copy` gets each part too."""
        upstream, bounds = self._upstream, self._bounds
        if upstream.method != hdrs.METH_HEAD and (upstream.content_length or 0) > bounds.answer_bytes:
            raise UpstreamError(HTTPStatus.BAD_GATEWAY, "answer-too-large")
        self.response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
        self.begun = True
        await self.response.prepare(self._request)
        size = 0
        self._wait_for(bounds.silence_seconds)
        async for part in upstream.content.iter_any():
            size += len(part)
            if size > bounds.answer_bytes:
                raise aiohttp.ClientPayloadError("the answer is too large")
            if copy is not None:
                copy(part)
            await self.response.write(part)
            self._wait_for(bounds.silence_seconds)
        await self.response.write_eof()
        self.whole = True


@asynccontextmanager
async def asked(
    request: web.BaseRequest,
    http: aiohttp.ClientSession,
    url: URL,
    *,
    sent_headers: Mapping[str, str],
    withheld: Collection[str] = (),
    bounds: Bounds = Bounds(),
) -> AsyncIterator[Answer]:
    """Ask an upstream what `request` asks us, at `url`, which is sent as it is (yarl: `encoded=True`).

    `sent_headers` (X-Forwarded-…) are put over the request's; of the visitor's headers those in `withheld` (lower
    case) do not leave the house. Raises UpstreamError; but what goes wrong once the answer is being handed on only
    ends the block: look at `whole`.
    """
    headers = request_headers(request.headers, sent_headers, withheld)
    if (request.content_length or 0) > bounds.request_bytes:
        raise UpstreamError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large")
    answer: Answer | None = None
    try:
        async with (
            _Patience(request, bounds) as wait_for,
            http.request(
                request.method,
                url,
                headers=headers,
                data=_body(request, wait_for, bounds) if request.body_exists else None,
                allow_redirects=False,
                timeout=_timeout(bounds.connect_seconds),
            ) as upstream,
        ):
            if upstream.status < HTTPStatus.OK:  # a protocol nobody asked for
                raise UpstreamError(HTTPStatus.BAD_GATEWAY, "upstream-malformed")
            answer = Answer(request, upstream, wait_for, bounds)
            yield answer
    except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
        if answer is None or not answer.begun:
            raise UpstreamError(*reason_of(error, request)) from error
    finally:
        if answer is not None and answer.begun and not answer.whole:
            _break_off(request)


async def _body(
    request: web.BaseRequest, wait_for: Callable[[float], None], bounds: Bounds
) -> AsyncIterator[bytes]:
    """Give the visitor's body; one that waits to be asked for it is asked."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > bounds.request_bytes:
            raise _BodyTooLargeError
        wait_for(bounds.answer_seconds)
        yield part


class _Patience:
    """Raises TimeoutError, up to a second late, at a deadline that moves, or when the visitor has left.

    One timer looks at both: to set one anew with each part costs more than the part.
    """

    def __init__(self, request: web.BaseRequest, bounds: Bounds) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._end = self._now() + bounds.whole_seconds
        self._deadline = min(self._now() + bounds.answer_seconds, self._end)
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    def wait_for(self, seconds: float) -> None:
        """Move the deadline to so much from now."""
        self._deadline = min(self._now() + seconds, self._end)

    async def __aenter__(self) -> Callable[[float], None]:
        await self._timeout.__aenter__()
        self._look()
        return self.wait_for

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _look(self) -> None:
        now = self._now()
        if now >= self._deadline or _has_left(self._request):
            self._timer = None
            self._timeout.reschedule(now)
        else:
            self._timer = self._loop.call_at(min(now + _LOOK_SECONDS, self._deadline), self._look)


@lru_cache(maxsize=16)
def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_seconds)


def _has_left(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _once(request: aiohttp.ClientRequest, send: _Send) -> aiohttp.ClientResponse:
    """Keep aiohttp from asking a second time when an upstream hangs up: it may have acted on the first."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise  # never sent, never repeated
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _HungUpError from error


def reason_of(error: Exception, request: web.BaseRequest) -> tuple[int, str]:
    """Say in a status and a word why there is no answer."""
    if _has_left(request):
        return NOBODY, "visitor-left"
    if isinstance(error.__cause__, _BodyTooLargeError):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large"
    if isinstance(error, TimeoutError):
        return HTTPStatus.GATEWAY_TIMEOUT, "upstream-too-slow"
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return HTTPStatus.BAD_GATEWAY, "upstream-unreachable"
    if isinstance(error, aiohttp.ClientResponseError):
        return HTTPStatus.BAD_GATEWAY, "upstream-malformed"
    return HTTPStatus.BAD_GATEWAY, "upstream-hung-up"


def _break_off(request: web.BaseRequest) -> None:
    """Reset the visitor's connection: a plain close would look like the end of a body without a length."""
    transport = request.transport
    if transport is not None:
        client: socket.socket = transport.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
