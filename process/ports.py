"""Ports that are listened on: opened once, before processes part, and answered by each of them."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from process.at_once import AtOnce
from process.crowd import Crowd
from process.protocol import AHEAD_BYTES, GOODBYE_SECONDS, REQUEST_SECONDS, TAKE_SECONDS, server
from process.run import CannotStartError

REQUESTS_FINISH_SECONDS: Final = 3.0
"""For requests in hand when told to stop; with 3 s for the shipper and slack this stays below 10 s."""

_BACKLOG: Final = 1024

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def listen(host: str, port: int, variable: str = "PORT") -> socket.socket:
    """Open the port; raises CannotStartError with the cure."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CannotStartError(
            f"Cannot listen on {host} port {port} ({error.strerror}): "
            f"stop the program that uses it, or set {variable} to another one."
        ) from None
    # Connections inherit them: each that is accepted has them without a word. Not every system knows both (tcp(7)).
    for name, value in (("TCP_USER_TIMEOUT", int(TAKE_SECONDS * 1000)), ("TCP_NOTSENT_LOWAT", AHEAD_BYTES)):
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listener


@dataclass(frozen=True, slots=True)
class Door:
    """A port that is being answered."""

    port: asyncio.Server
    runner: web.ServerRunner

    async def close(self) -> None:
        """Stop accepting, finish the requests in hand."""
        self.port.close()
        await self.runner.cleanup()


async def open_door(
    listener: socket.socket,
    answering: Answer,
    context: ssl.SSLContext | None = None,
    at_once: AtOnce | None = None,
    crowd: Crowd | None = None,
) -> Door:
    """Answer an open port, with TLS if there is a context; its connections are among those of `crowd`."""
    # Not web.SockSite, which leaves asyncio's minute to a client that never ends its handshake.
    connections = server(answering, at_once, crowd)
    runner = web.ServerRunner(connections, shutdown_timeout=REQUESTS_FINISH_SECONDS)
    await runner.setup()
    port = await asyncio.get_running_loop().create_server(
        connections,
        sock=listener,
        backlog=_BACKLOG,
        ssl=context,
        ssl_handshake_timeout=REQUEST_SECONDS if context else None,
        ssl_shutdown_timeout=GOODBYE_SECONDS if context else None,
    )
    return Door(port, runner)
