"""What is answered at once and what in aiohttp's own way is one conversation: in order, and by the rules of HTTP."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from process.at_once import ENOUGH_BYTES, AtOnce
from process.protocol import server

QUICK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """Answers `/quick…` at once, and everything else when `go` is set; remembers who was asked what."""

    def __init__(self):
        self.at_once_asked, self.asked, self.turns = [], [], []
        self.breaks = False
        self.go = asyncio.Event()
        self.go.set()

    def at_once(self, request):
        self.at_once_asked.append(request.raw_path)
        if request.raw_path == "/broken":
            raise ArithmeticError
        if request.raw_path == "/large":
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (ENOUGH_BYTES, b"x" * ENOUGH_BYTES)
        if not request.raw_path.startswith("/quick") or request.method != "GET":
            return None
        return (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(request.raw_path)}\r\n\r\n{request.raw_path}".encode()
        )

    def before_sending(self, _began):
        self.turns.append(len(self.at_once_asked))
        self.at_once_asked.clear()
        if self.breaks:
            raise ArithmeticError

    async def answer(self, request):
        self.asked.append(request.raw_path)
        await self.go.wait()
        return web.Response(text=request.raw_path)


@asynccontextmanager
async def talking(site):
    listening = await asyncio.get_running_loop().create_server(
        server(site.answer, AtOnce(site.at_once, site.before_sending)), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        async with asyncio.timeout(10):
            writer.write(SLOW)
            assert await body(reader) == "/slow"
            yield reader, writer
    finally:
        writer.close()
        listening.close()


async def body(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    return (await reader.readexactly(length)).decode()


async def have_one_in_hand(site, writer):
    site.go.clear()
    writer.write(SLOW)
    while len(site.asked) < 2:
        await asyncio.sleep(0.001)


@pytest.fixture
async def site():
    return Site()


async def test_a_request_is_answered_at_once_where_it_can_be(site):
    async with talking(site) as (reader, writer):
        for number in range(100):
            writer.write(QUICK.replace(b"/quick", b"/quick%d" % number))
            assert await body(reader) == f"/quick{number}"
    assert site.asked == ["/slow"]


async def test_answers_come_in_the_order_of_their_requests(site):
    async with talking(site) as (reader, writer):
        for _ in range(20):
            writer.write(QUICK + QUICK + SLOW + QUICK + SLOW + SLOW + QUICK)
            found = [await body(reader) for _ in range(7)]
            assert found == ["/quick", "/quick", "/slow", "/quick", "/slow", "/slow", "/quick"]


async def test_a_request_behind_one_in_hand_waits_for_it(site):
    async with talking(site) as (reader, writer):
        await have_one_in_hand(site, writer)
        writer.write(QUICK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(1)
        site.go.set()
        assert [await body(reader), await body(reader)] == ["/slow", "/quick"]
    assert site.asked == ["/slow", "/slow"], "and is answered at once then"


async def test_many_requests_behind_one_in_hand_are_answered_in_their_order(site):
    async with talking(site) as (reader, writer):
        await have_one_in_hand(site, writer)
        for _ in range(500):
            writer.write(QUICK)
            await asyncio.sleep(0)
            writer.write(SLOW)
            await asyncio.sleep(0)
        site.go.set()
        assert [await body(reader) for _ in range(1001)] == ["/slow"] + ["/quick", "/slow"] * 500


async def test_an_upgrade_that_nobody_takes_is_answered_in_its_place_behind_one_in_hand(site):
    upgrade = b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with talking(site) as (reader, writer):
        await have_one_in_hand(site, writer)
        writer.write(QUICK)
        await asyncio.sleep(0.01)
        writer.write(QUICK + upgrade + QUICK)
        await asyncio.sleep(0.01)
        site.go.set()
        found = [await body(reader) for _ in range(5)]
    assert found == ["/slow", "/quick", "/quick", "/upgrade", "/quick"]


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_request_that_is_here_when_the_server_closes_is_answered(site, turns):
    connections = server(site.answer, AtOnce(site.at_once, site.before_sending))
    runner = web.ServerRunner(connections, shutdown_timeout=5)
    await runner.setup()
    listening = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    clients = [await asyncio.open_connection(*listening.sockets[0].getsockname()) for _ in range(100)]
    try:
        for reader, writer in clients:
            writer.write(QUICK)
            assert await body(reader) == "/quick"
        listening.close()
        for _, writer in clients:
            writer.write(QUICK)
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.cleanup()
        async with asyncio.timeout(10):
            answers = [await reader.read() for reader, _ in clients]
        assert [answer.count(b"/quick") for answer in answers] == [1] * len(clients)
    finally:
        for _, writer in clients:
            writer.close()
            await writer.wait_closed()


async def test_a_request_that_comes_in_pieces_is_answered_when_it_is_whole(site):
    async with talking(site) as (reader, writer):
        for piece in (QUICK[:5], QUICK[5:30], QUICK[30:] + QUICK[:7], QUICK[7:]):
            writer.write(piece)
            await asyncio.sleep(0)
        assert [await body(reader), await body(reader)] == ["/quick", "/quick"]


async def test_more_requests_than_are_kept_are_all_answered(site):
    async with talking(site) as (reader, writer):
        writer.write((QUICK + SLOW) * 500)
        assert [await body(reader) for _ in range(1000)] == ["/quick", "/slow"] * 500


@pytest.mark.parametrize(
    ("request_text", "stays_open"),
    [
        (b"GET /quick HTTP/1.0\r\n\r\n", False),
        (b"GET /quick HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", True),
        (b"POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", True),
    ],
    ids=["HTTP/1.0", "1.0 keep-alive", "close", "a body", "a form"],
)
async def test_what_is_no_plain_request_goes_the_usual_way(site, request_text, stays_open):
    async with talking(site) as (reader, writer):
        writer.write(request_text)
        assert await body(reader) == "/quick"
        assert site.asked == ["/slow", "/quick"]
        if stays_open:
            writer.write(QUICK)
            assert await body(reader) == "/quick"
        else:
            assert await reader.read() == b""


async def test_nonsense_behind_an_answered_request_is_refused(site):
    async with talking(site) as (reader, writer):
        writer.write(QUICK)
        assert await body(reader) == "/quick"
        writer.write(b"\0\0\0\r\n\r\n")
        assert b" 400 " in await reader.read()


async def test_what_the_answers_of_a_turn_rely_on_is_done_once_before_they_are_sent(site):
    async with talking(site) as (reader, writer):
        site.turns.clear()
        writer.write(QUICK * 5)
        assert [await body(reader) for _ in range(5)] == ["/quick"] * 5
        assert site.turns == [5]
        writer.write(QUICK)
        assert await body(reader) == "/quick"
        assert site.turns == [5, 1]


async def test_many_connections_are_answered_in_turns_together(site, monkeypatch):
    monkeypatch.setattr("process.at_once.MOST_TOGETHER", 8)
    async with contextlib.AsyncExitStack() as stack, talking(site) as (first, _):
        address = first._transport.get_extra_info("peername")
        others = [await asyncio.open_connection(*address) for _ in range(20)]
        for _, writer in others:
            stack.callback(writer.close)
            writer.write(SLOW)
        assert [await body(reader) for reader, _ in others] == ["/slow"] * 20
        site.turns.clear()
        for _, writer in others:
            writer.write(QUICK)
        assert [await body(reader) for reader, _ in others] == ["/quick"] * 20
    assert sum(site.turns) == 20
    assert 20 / 8 <= len(site.turns) < 20
    assert max(site.turns) <= 8


async def test_an_answer_that_fails_is_left_to_aiohttp_and_its_neighbours_are_answered(site):
    async with talking(site) as (reader, writer), talking(site) as (other, other_writer):
        writer.write(QUICK + QUICK.replace(b"/quick", b"/broken") + QUICK)
        other_writer.write(QUICK)
        assert [await body(reader) for _ in range(3)] == ["/quick", "/broken", "/quick"]
        assert await body(other) == "/quick"


async def test_what_fails_before_sending_keeps_no_visitor_waiting(site):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    async with talking(site) as (reader, writer):
        site.breaks = True
        writer.write(QUICK + QUICK)
        assert [await body(reader), await body(reader)] == ["/quick", "/quick"]
    assert [type(error) for error in told] == [ArithmeticError]


async def test_who_asks_for_much_in_one_piece_is_given_a_bounded_piece_at_a_time(site):
    async with talking(site) as (reader, writer):
        large = QUICK.replace(b"/quick", b"/large")
        writer.write(large * 3 + QUICK)
        answers = [await body(reader) for _ in range(4)]
        assert [len(answer) for answer in answers] == [
            ENOUGH_BYTES,
            len("/large"),
            len("/large"),
            len("/quick"),
        ]
        assert site.asked == ["/slow", "/large", "/large", "/quick"]
