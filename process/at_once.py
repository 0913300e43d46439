"""Requests answered as they arrive: the moment they are parsed, where nothing has to be waited for.

For each request aiohttp wakes a task, starts another, and makes a request, a writer and a response: 65 of the 210 µs
of a click (measured). What is answered here goes out without them; what is left goes its usual way, in order.

This leans on the inside of aiohttp's RequestHandler; tests/test_at_once.py tells when that changes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy


class ParsedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request as it was parsed; what it shares with aiohttp's has the same name there."""

    method: str
    raw_path: str
    """With the query."""
    headers: CIMultiDictProxy[str]
    transport: asyncio.Transport | None


AnyRequest = web.BaseRequest | ParsedRequest

ENOUGH_BYTES: Final = 64 * 1024
"""Of one connection in one turn: whoever asks for much in one piece takes the answers before he is given more."""

MOST_TOGETHER: Final = 64
"""Connections in one turn, about 5 ms: the first to be answered waits for the last."""


@dataclass(frozen=True, slots=True)
class AtOnce:
    """What can be answered without waiting."""

    answer: Callable[[ParsedRequest], bytes | None]
    """Gives the whole answer, and the connection stays open; None, having done nothing, if it takes longer."""
    before_sending: Callable[[float], None]
    """Does what the answers of this turn rely on; is told when the turn began (`time.perf_counter`)."""


class Turn:
    """One turn of the event loop: all connections are read, then all requests answered, then all answers sent.

    So the same code runs again and again, without a system call in between, and what the answers rely on is done
    for all of them in one go.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, at_once: AtOnce) -> None:
        self._loop = loop
        self._at_once = at_once
        self._connections: list[PromptHandler] = []

    def add(self, connection: "PromptHandler") -> None:
        """Have a connection's requests answered once all others have been read."""
        if not self._connections:
            self._loop.call_soon(self._answer_all)
        self._connections.append(connection)

    def _answer_all(self) -> None:
        connections, self._connections = self._connections[:MOST_TOGETHER], self._connections[MOST_TOGETHER:]
        if self._connections:
            self._loop.call_soon(self._answer_all)
        began = time.perf_counter()
        answers = [connection.answers(self._at_once.answer) for connection in connections]
        try:
            self._at_once.before_sending(began)
        finally:
            for connection, some in zip(connections, answers, strict=True):
                connection.send(some)


_WAITER: Final[Any] = RequestHandler.__dict__["_waiter"]
"""Where a connection has the future by which its task waits for the next request; None while one is in hand."""


class PromptHandler(RequestHandler):
    """A connection whose requests are answered at once where they can be."""

    __slots__ = ("_behind", "_turn")

    def __init__(self, manager: web.Server, *, turn: Turn | None = None, **limits: Any) -> None:
        super().__init__(manager, **limits)
        self._turn: Final = turn
        self._behind: deque[Any] = deque()
        """What came while a request was in hand: out of sight of aiohttp's task, which would take it up itself."""

    @property
    def answered_at(self) -> float:
        """When a request was answered last, or the connection began, by the loop's clock."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    @property
    def in_hand(self) -> bool:
        """Whether a request is."""
        waiter = self._waiter
        return waiter is None or waiter.done() or bool(self._messages or self._behind)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the requests among them are answered at the end of the turn."""
        if self._turn is None:
            super().data_received(data)
            return
        waiter = self._waiter
        if waiter is None:
            self._show_behind()
            super().data_received(data)
            if not (self._upgraded or self._buffer_paused):  # then aiohttp counts what it has
                self._messages, self._behind = self._behind, self._messages
            return
        self._waiter = None  # aiohttp's task is woken only for what is not answered here
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if self._messages:
            self._turn.add(self)

    def answers(self, answer: Callable[[ParsedRequest], bytes | None]) -> bytes:
        """Answer requests up to the first that takes longer, or until that is enough for one piece."""
        found = b""
        while self._messages and self._parser and self.transport and self._waiter and not self._waiter.done():
            if self._paused or self._buffer_paused or len(found) > ENOUGH_BYTES:
                break
            message, payload = self._messages[0]
            if not isinstance(message, RawRequestMessage) or payload is not EMPTY_PAYLOAD or message.upgrade:
                break
            if message.should_close or message.version != HttpVersion11:
                break
            try:
                one = answer(ParsedRequest(message.method, message.path, message.headers, self.transport))
            except Exception:  # noqa: BLE001 (others wait for theirs; aiohttp asks again, and tells of it)
                break
            if one is None:
                break
            found += one
            self._messages.popleft()
            self._parser.message_consumed()
        if found:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return found

    def send(self, answers: bytes) -> None:
        """Send what was answered, and leave the rest to aiohttp."""
        if answers and self.transport:
            self.transport.write(answers)
        self._leave_to_aiohttp()

    def close(self) -> None:
        """Close, but for a request that is here and waits for its turn: aiohttp's task answers it first."""
        self._leave_to_aiohttp()
        super().close()

    def _leave_to_aiohttp(self) -> None:
        if self._messages and self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _begin_to_wait(self, waiter: asyncio.Future[None] | None) -> None:
        """Learn that aiohttp's task waits again, or does no longer: a turn after its answer was sent.

        The next request may be here by then. Were it left to the task, so would be the one after it, and so on: under
        load a kept connection would never come back, and a click take up to 1.6 times the time (measured).
        """
        _WAITER.__set__(self, waiter)
        if waiter is not None and self._behind and self._turn is not None:
            self._show_behind()
            self._turn.add(self)

    _waiter = property(_WAITER.__get__, _begin_to_wait)

    def _show_behind(self) -> None:
        if self._behind:  # then there is nothing else in sight
            self._messages, self._behind = self._behind, self._messages
