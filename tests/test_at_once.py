"""What is answered at once and what in aiohttp's own way is one conversation: in order, and by the rules of HTTP."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from process.protocol import server

QUICK = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """Answers `/quick…` at once, and everything else when `go` is set; remembers who was asked what."""

    def __init__(self):
        self.at_once_asked, self.asked = [], []
        self.go = asyncio.Event()
        self.go.set()

    def at_once(self, request):
        self.at_once_asked.append(request.raw_path)
        if not request.raw_path.startswith("/quick") or request.method != "GET":
            return None
        return (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(request.raw_path)}\r\n\r\n{request.raw_path}".encode()
        )

    async def answer(self, request):
        self.asked.append(request.raw_path)
        await self.go.wait()
        return web.Response(text=request.raw_path)


@asynccontextmanager
async def talking(site):
    listening = await asyncio.get_running_loop().create_server(
        server(site.answer, site.at_once), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        async with asyncio.timeout(10):
            # The first request comes before aiohttp's task waits for any.
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
        site.go.clear()
        writer.write(SLOW)
        while len(site.asked) < 2:
            await asyncio.sleep(0.001)
        writer.write(QUICK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(1)
        site.go.set()
        assert [await body(reader), await body(reader)] == ["/slow", "/quick"]


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
