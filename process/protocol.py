"""What a connection may cost us, in one place: limits of time and size, and refusals that tell strangers nothing.

aiohttp answers what it cannot parse by itself, with its version and the offending bytes, and logs a traceback; and
it waits without limit for a request that never ends. This is the little that differs here.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong

from process.at_once import AtOnce, PromptHandler, Turn
from process.crowd import Crowd

LONGEST_LINE_BYTES: Final = 16 * 1024
"""Of a request's first line; browsers stop at 8 KB or so, ad networks have been seen to exceed that."""

LONGEST_HEADER_BYTES: Final = 16 * 1024
"""Of one header; a user agent of 8 KB is hostile, and still a click."""

MOST_HEADERS: Final = 128

REQUEST_SECONDS: Final = 10.0
"""From the connection to the end of the first request's headers, TLS included."""

KEEP_ALIVE_SECONDS: Final = 75.0
"""From an answer to the end of the next request's headers: above a load balancer's 60 s, so that it closes first."""

GOODBYE_SECONDS: Final = 3.0
"""For a client with TLS to say goodbye, too, before the connection is closed."""

LINGER_SECONDS: Final = 3.0
"""For a body nobody wants to be read and thrown away, before the connection is closed."""

LARGEST_BODY_BYTES: Final = 256 * 1024
"""Of a request that has one: a link's record is 1 KB, a hundred in-app events 50 KB."""

BODY_SECONDS: Final = 10.0
"""For the whole of it to arrive."""

TAKE_SECONDS: Final = 60.0
"""For a client to take something of its answers; then the system ends it, which would hold them for ever."""

AHEAD_BYTES: Final = 128 * 1024
"""Of a client's answers that the system takes before the client does; Linux would take 4 MB."""

WHY: Final = "X-Onward"
"""The header in which every refusal says why, for a developer to read."""

SERVER: Final = "onward"

_TOO_SLOW: Final = (
    f"HTTP/1.1 408 Request Timeout\r\nServer: {SERVER}\r\n{WHY}: request-too-slow\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n"
).encode()
_LIMITS: Final[dict[str, Any]] = {
    "max_line_size": LONGEST_LINE_BYTES,
    "max_field_size": LONGEST_HEADER_BYTES,
    "max_headers": MOST_HEADERS,
    "keepalive_timeout": KEEP_ALIVE_SECONDS,
    "lingering_time": LINGER_SECONDS,
    "auto_decompress": False,
    "access_log": None,
}


class RefusedError(Exception):
    """A request that is answered with a status and a word why, and its connection closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


async def read_body(request: web.BaseRequest) -> bytes:
    """Read a request's body; raises RefusedError for one that is too large, too slow or broken off."""
    if (request.content_length or 0) > LARGEST_BODY_BYTES:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large")
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > LARGEST_BODY_BYTES:
                    raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large")
    except TimeoutError:
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "request-too-slow") from None
    except web.RequestPayloadError:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "body-broken-off") from None
    return bytes(body)


class Connection(PromptHandler):
    """One client's connection."""

    __slots__ = ("_crowd", "_deadline", "_stalled_at", "_untaken", "_wire")

    def __init__(self, manager: web.Server, *, crowd: Crowd | None = None, **options: Any) -> None:
        super().__init__(manager, **options)
        self._crowd: Final = crowd
        self._stalled_at: float | None = None
        """When the client last took something of what is too much for it; None while it keeps up."""
        self._untaken = 0
        """Bytes of that, when we last looked."""
        self._wire: asyncio.Transport | None = None
        """The transport until it is closed, and not only, as aiohttp's, until it is to be closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with the time that a first request may take, if there is room."""
        super().connection_made(transport)
        self._wire = self.transport
        self._deadline: asyncio.TimerHandle | None = self._loop.call_later(REQUEST_SECONDS, self._give_up)
        if self._crowd is not None:
            self._crowd.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes; with the first whole request the deadline is kept."""
        super().data_received(data)
        if self._deadline is not None and self._request_count:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._wire = None
        if self._crowd is not None:
            self._crowd.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Learn that the client takes less than it is sent."""
        super().pause_writing()
        self._stalled_at, self._untaken = self._loop.time(), self._unsent

    def resume_writing(self) -> None:
        """Learn that it took most of that."""
        super().resume_writing()
        self._stalled_at = None

    def silent_since(self) -> float | None:
        """Since when nothing came of it, by the loop's clock; None while a request is in hand and gets on."""
        if self._stalled_at is not None:
            if self._unsent < self._untaken:
                self._stalled_at, self._untaken = self._loop.time(), self._unsent
            return self._stalled_at
        if self.transport is None or self.transport.is_closing():
            return self.answered_at
        if self.in_hand:
            return None
        return self.answered_at + (TAKE_SECONDS if self._unsent else 0)  # the rest of an answer is on its way

    @property
    def _unsent(self) -> int:
        return self._wire.get_write_buffer_size() if self._wire is not None else 0

    def abort(self) -> None:
        """Close at once: without waiting for what is unsent, or with TLS for a goodbye."""
        if self._wire is not None:
            self._wire.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse what cannot be parsed; what is our own fault is logged by aiohttp as ever."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            answer = super().handle_error(request, status, exc, message)
            answer.headers[hdrs.SERVER] = SERVER
            return answer
        status, why = _refusal(exc)
        refused = web.Response(status=status, headers={hdrs.SERVER: SERVER, WHY: why})
        refused.force_close()
        return refused

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport is not None:
            self.transport.write(_TOO_SLOW)
        self.force_close()


def _refusal(error: BaseException | None) -> tuple[int, str]:
    """Say what was wrong with a request in a status and a word."""
    if isinstance(error, LineTooLong):
        line = error.args[0]
        start = line[:8] if isinstance(line, bytes | bytearray) else str(line)[:8].encode()
        if start.startswith((b"/", b"http")):
            return HTTPStatus.REQUEST_URI_TOO_LONG, "request-line-too-long"
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "header-too-long"
    if "Too many headers" in str(error):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-headers"
    return HTTPStatus.BAD_REQUEST, "malformed-request"


class Server(web.Server):
    """aiohttp's low-level server with connections of ours."""

    def __call__(self) -> Connection:
        """Make what the event loop gives a new client's bytes to."""
        return Connection(self, loop=self._loop, **self._kwargs)


def server(answer: Any, at_once: AtOnce | None = None, crowd: Crowd | None = None) -> Server:
    """Give the server for a function from request to response, not asked for what `at_once` answers.

    Its connections are among those of `crowd`.
    """
    turn = Turn(asyncio.get_running_loop(), at_once) if at_once else None
    return Server(answer, turn=turn, crowd=crowd, **_LIMITS)
