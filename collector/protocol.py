"""What a connection may cost us, in one place: limits of time and size, and refusals that tell strangers nothing.

aiohttp answers what it cannot parse by itself, with its version and the offending bytes, and logs a traceback; and
it waits without limit for a request that never ends. This is the little that differs here.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

LONGEST_LINE_BYTES: Final = 16 * 1024
"""Of a request's first line; browsers stop at 8 KB or so, ad networks have been seen to exceed that."""

LONGEST_HEADER_BYTES: Final = 16 * 1024
"""Of one header; a user agent of 8 KB is hostile, and still a click."""

MOST_HEADERS: Final = 128

REQUEST_SECONDS: Final = 10.0
"""From the connection to the end of the first request's headers, TLS included."""

KEEP_ALIVE_SECONDS: Final = 75.0
"""From an answer to the end of the next request's headers: above a load balancer's 60 s, so that it closes first."""

LINGER_SECONDS: Final = 3.0
"""For a body nobody wants to be read and thrown away, before the connection is closed."""

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


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_deadline",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with the time that a first request may take."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = self._loop.call_later(REQUEST_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take bytes; with the first whole request the deadline is kept."""
        super().data_received(data)
        if self._deadline is not None and self._request_count:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connection_lost(exc)

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


def server(answer: Any) -> Server:
    """Give the server for a function from request to response."""
    return Server(answer, **_LIMITS)
