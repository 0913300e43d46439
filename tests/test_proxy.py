"""Links in proxy mode: real upstreams, well-behaved and not, and a real relay between them and a visitor."""

import asyncio
import gzip
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from collector.mount import Mount, scoped_cookie, seen_location, upstream_url
from collector.proxy import open_proxy, proxied
from collector.public_address import is_public
from collector.relay import Bounds, open_upstreams, relay
from collector.upstream import MOST_RELAYS, UpstreamError
from process.ports import listen, open_door

DATA = Path(__file__).parent / "data"
URLS = yaml.safe_load((DATA / "proxy_urls.yml").read_text("utf-8"))
LOCATIONS = yaml.safe_load((DATA / "proxy_locations.yml").read_text("utf-8"))
COOKIES = yaml.safe_load((DATA / "proxy_cookies.yml").read_text("utf-8"))
ADDRESSES = [line.split() for line in (DATA / "proxy_addresses.txt").read_text("utf-8").splitlines()]

SOON = Bounds(connect_seconds=2, answer_seconds=0.5, silence_seconds=0.5, whole_seconds=5)
PATIENT = Bounds(connect_seconds=20, answer_seconds=20, silence_seconds=20, whole_seconds=20)
WITHIN = 15
"""Seconds in which everything here ends, on a slow machine too."""


# What is fetched, and what an answer means here


@pytest.mark.parametrize("case", URLS, ids=lambda case: f"{case['target']} {case.get('rest')}")
def test_rest_and_query_are_put_behind_the_target(case):
    arguments = case["target"], case.get("rest", ""), case.get("query", "")
    if "refused" not in case:
        assert str(upstream_url(*arguments)) == case["becomes"]
        return
    with pytest.raises(UpstreamError) as refused:
        upstream_url(*arguments)
    assert refused.value.why == case["refused"]


parts = st.lists(
    st.one_of(st.sampled_from([*"/.%2eEfF5cC;@:?#\\", "..", "//", "%2e", "%252e", "evil"]), st.text()),
    max_size=12,
).map("".join)


@given(target=st.sampled_from(["https://t.example", "https://t.example/a/b/?x=1"]), rest=parts, query=parts)
def test_no_path_and_no_query_lead_away_from_the_target(target, rest, query):
    start = upstream_url(target, "", "")
    try:
        url = upstream_url(target, rest, query)
    except UpstreamError as refused:
        assert refused.status == 400
        return
    assert url.origin() == start.origin()
    assert url.raw_path.startswith(start.raw_path)
    assert url.raw_query_string.startswith(start.raw_query_string)
    assert url.raw_fragment == ""
    # As a server sees it that takes away dot segments, before or after it decodes.
    assert URL(str(url)).path.startswith(start.path)
    assert str(url).isascii()
    assert not any(character.isspace() for character in str(url))


@pytest.mark.parametrize("case", LOCATIONS, ids=lambda case: f"{case['target']} {case['location']}")
def test_a_location_is_told_as_the_visitor_has_to_ask_for_it(case):
    base = case.get("base", "/one")
    mount = Mount(base, case["target"], takes_rest=base == "/one")
    asked = upstream_url(case.get("asked", case["target"]), "", "")
    assert seen_location(mount, asked, case["location"]) == case.get("becomes")


@given(location=st.one_of(parts, parts.map("https://t.example/a".__add__)))
def test_every_location_below_us_leads_back_to_the_target(location):
    mount = Mount("/one", "https://t.example/a?own=1")
    told = seen_location(mount, upstream_url(mount.target, "", ""), location)
    if told is None or told.startswith(("http://", "https://")):
        return
    path, _, query = told.partition("#")[0].partition("?")
    assert path.startswith("/one")
    fetched = upstream_url(mount.target, path.removeprefix("/one"), query)
    assert fetched.raw_path.startswith("/a")


@pytest.mark.parametrize("case", COOKIES, ids=lambda case: case["cookie"])
def test_a_cookie_is_for_its_link_alone(case):
    assert scoped_cookie(case["cookie"], "/one") == case["becomes"]


@pytest.mark.parametrize(("kind", "address"), ADDRESSES)
def test_an_address_is_public_or_not(kind, address):
    assert is_public(address) == (kind == "public")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_within_an_ipv6_one_is_what_it_is_alone(address: IPv4Address):
    number = int(address)
    for within in (
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
    ):
        assert is_public(within) == is_public(str(address)), within


# Through a real relay


class Upstream:
    """A server of the test's own: what it was asked, and how many of its connections are open."""

    def __init__(self):
        self.heads = []
        self.open = 0
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_upstream(answer):
    """Give a server that reads a request's head and then does what `answer(reader, writer)` does."""
    upstream = Upstream()

    async def connected(reader, writer):
        upstream.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    upstream.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                    if not await answer(reader, writer):
                        return
        finally:
            upstream.open -= 1
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await until(lambda: upstream.open == 0)


def saying(*parts, then=None):
    """Give an answer of these bytes, after which the connection stays open, or `then(reader, writer)` is done."""

    async def answer(reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then is None:
            return True
        await then(reader, writer)
        return False

    return answer


async def reset(_reader, writer):
    client = writer.get_extra_info("socket")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang(reader, _writer):
    with suppress(ConnectionError):
        await reader.read()


async def trickle(_reader, writer):
    with suppress(ConnectionError):
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)


async def until(condition):
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def door(answer):
    """Give the port of a server that answers as a collector does."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    opened = await open_door(listener, answer)
    try:
        yield port
    finally:
        await opened.close()


@asynccontextmanager
async def link(target, *, bounds=PATIENT, private_allowed=True, **more):
    """Give the port of a collector whose one link, /one, has this target."""
    async with open_proxy(private_allowed=private_allowed) as http:

        async def answer(request):
            return await proxied(
                request,
                http,
                Mount("/one", target),
                request.raw_path.partition("?")[0].removeprefix("/one"),
                own_headers={"Server": "onward", "Strict-Transport-Security": "max-age=1"},
                sent_headers={"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"},
                bounds=bounds,
                **more,
            )

        async with door(answer) as port:
            yield port
        assert not http.connector._acquired


async def ask(port, path="/one", *, method="GET", headers="", version="1.1"):
    """Send a request; give status, headers and all bytes behind them. A reset raises ConnectionResetError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(WITHIN):
            writer.write(
                f"{method} {path} HTTP/{version}\r\nHost: here.example\r\n{headers}"
                "Connection: close\r\n\r\n".encode()
            )
            head, _, body = (await _all(reader)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = CIMultiDict(line.split(": ", 1) for line in lines)
    return int(status_line.split(" ")[1]), headers, body


async def _all(reader):
    """Read to the end; a reset raises ConnectionResetError that carries what came before it."""
    received = b""
    while True:
        try:
            part = await reader.read(2**16)
        except ConnectionResetError:
            raise ConnectionResetError(received) from None
        if not part:
            return received
        received += part


def lines_of(head):
    return [line.lower() for line in head.split("\r\n")]


async def test_a_link_gives_what_its_target_gives():
    body = gzip.compress(b"landing page")
    answer = saying(
        b"HTTP/1.1 203 Quite Fine\r\nContent-Encoding: gzip\r\nContent-Type: text/x; charset=odd\r\n"
        b'ETag: W/"1"\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body)
    )
    async with raw_upstream(answer) as upstream, link(f"{upstream.url}/a?x=%2f") as port:
        status, headers, received = await ask(port, "/one/b%2Fc?y=+")
        assert upstream.heads[0].startswith("GET /a/b%2Fc?x=%2f&y=+ HTTP/1.1\r\n")
        assert f"host: 127.0.0.1:{upstream.port}" in lines_of(upstream.heads[0])
    assert (status, received) == (203, body)
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"] == "text/x; charset=odd"
    assert headers["ETag"] == 'W/"1"'
    assert headers.getall("X-Two") == ["1", "2"]
    assert headers["Server"] == "onward"
    assert headers["Strict-Transport-Security"] == "max-age=1"


async def test_what_is_between_two_neighbours_goes_no_further_and_nothing_is_added():
    answer = saying(
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nUpgrade: h2c\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\nX-End: 1\r\n\r\n"
        b"2\r\nhi\r\n0\r\n\r\n"
    )
    headers = (
        "Connection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nUpgrade: websocket\r\nProxy-Authorization: x\r\n"
        "Authorization: Basic eDp5\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n"
        "X-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\nX-Mine: 6.6.6.6\r\nExpect: x\r\n"
        'Range: bytes=1-\r\nIf-None-Match: "1"\r\nCookie: a=b\r\nX-End: 1\r\n'
    )
    async with raw_upstream(answer) as upstream, link(upstream.url, withheld={"x-mine"}) as port:
        _, received, body = await ask(port, headers=headers)
    assert sorted(lines_of(upstream.heads[0])[1:-2]) == sorted(
        [
            f"host: 127.0.0.1:{upstream.port}",
            "range: bytes=1-",
            'if-none-match: "1"',
            "cookie: a=b",
            "x-end: 1",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-proto: https",
            "cdn-loop: onward",
        ]
    )
    names = {name.lower() for name in received}
    assert names == {
        "transfer-encoding",  # between us and the visitor
        "connection",
        "x-end",
        "cache-control",
        "server",
        "strict-transport-security",
        "date",
        "content-type",
    }
    assert received["Connection"] == "close"
    assert body == b"2\r\nhi\r\n0\r\n\r\n"


async def test_an_answer_reaches_no_further_than_its_link():
    beyond = {
        "Strict-Transport-Security": "max-age=99",
        "Public-Key-Pins": "x",
        "Clear-Site-Data": '"*"',
        "Service-Worker-Allowed": "/",
        "Alt-Svc": 'h2="evil.example:443"',
        "NEL": "{}",
        "X-Accel-Redirect": "/internal",
        "X-Sendfile": "/etc/passwd",
        "WWW-Authenticate": "Basic",
        "X-Onward": "private-target",
    }
    given = "".join(f"{name}: {value}\r\n" for name, value in beyond.items()).encode()
    answer = saying(
        b"HTTP/1.1 301 Moved\r\n"
        + given
        + b"Set-Cookie: a=b; Domain=t.example; Path=/\r\nSet-Cookie: c=d\r\n"
        b"Location: /a/next\r\nContent-Location: /a/here\r\nRefresh: 3; URL='/a/later'\r\nCache-Control: public\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    async with raw_upstream(answer) as upstream, link(f"{upstream.url}/a") as port:
        status, headers, _ = await ask(port)
        assert len(upstream.heads) == 1, "a redirect is for the visitor to follow"
    assert status == 301
    assert [name for name in beyond if name in headers] == ["Strict-Transport-Security"]
    assert headers.getall("Strict-Transport-Security") == ["max-age=1"]
    assert headers.getall("Set-Cookie") == ["a=b; Path=/one", "c=d; Path=/one"]
    assert headers["Location"] == "/one/next"
    assert headers["Content-Location"] == "/one/here"
    assert headers["Refresh"] == "3; URL=/one/later"
    assert headers["Cache-Control"] == "no-store"


async def test_what_a_page_needs_may_be_cached_as_its_target_says():
    answer = saying(b"HTTP/1.1 200 OK\r\nCache-Control: public\r\nContent-Length: 0\r\n\r\n")
    async with raw_upstream(answer) as upstream, link(upstream.url) as port:
        assert (await ask(port, "/one/style.css"))[1]["Cache-Control"] == "public"
        assert (await ask(port, "/one?x"))[1]["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", b"200 OK"), ("GET", b"304 Not Modified"), ("GET", b"204 No Content")]
)
async def test_an_answer_without_a_body_keeps_its_headers(method, status):
    length = b"" if status.startswith(b"204") else b"Content-Length: 12345\r\n"
    answer = saying(b"HTTP/1.1 %s\r\nETag: x\r\n%s\r\n" % (status, length))
    async with raw_upstream(answer) as upstream, link(upstream.url) as port:
        received, headers, body = await ask(port, method=method)
        assert upstream.heads[0].startswith(method)
    assert (received, body) == (int(status[:3]), b"")
    assert headers["ETag"] == "x"
    assert method == "GET" or headers["Content-Length"] == "12345"


async def test_what_the_target_has_said_is_with_the_visitor_before_it_says_the_rest():
    go_on = asyncio.Event()

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    async with (
        door(stream) as upstream,
        link(f"http://127.0.0.1:{upstream}") as port,
        aiohttp.ClientSession() as visitor,
        visitor.get(f"http://127.0.0.1:{port}/one") as answer,
        asyncio.timeout(WITHIN),
    ):
        assert await answer.content.readany() == b"first"
        go_on.set()
        assert await answer.read() == b"second"


async def test_a_visitor_keeps_the_connection_and_so_do_we():
    answer = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    async with raw_upstream(answer) as upstream, link(upstream.url) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(WITHIN):
            for path in (b"/one", b"/one/../x", b"/one/b"):
                writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if b".." in path:
                    assert head.startswith("HTTP/1.1 400 ")
                    assert "X-Onward: bad-path" in head
                else:
                    assert await reader.readexactly(2) == b"hi"
        assert upstream.open == 1
        writer.close()


REFUSALS = {
    "upstream-unreachable": (None, 502),
    "upstream-hung-up": (saying(then=reset), 502),
    "upstream-too-slow": (saying(b"HTTP/1.1 200 OK\r\n", then=hang), 504),
    "upstream-malformed": (saying(b"SSH-2.0-OpenSSH\r\n\r\n", then=hang), 502),
    "answer-too-large": (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", then=hang), 502),
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_visitor_is_told_why_there_is_no_answer(why):
    answer, expected = REFUSALS[why]
    bounds = replace(SOON if why == "upstream-too-slow" else PATIENT, answer_bytes=1000)
    async with raw_upstream(answer or saying()) as upstream:
        if answer is None:
            upstream.port = listen_once()
        async with link(upstream.url, bounds=bounds) as port:
            status, headers, body = await ask(port)
    assert (status, body) == (expected, b"")
    assert headers["X-Onward"] == why
    assert headers["Server"] == "onward"
    assert headers["Cache-Control"] == "no-store"


def listen_once():
    """Give a port on which nobody listens any more."""
    with listen("127.0.0.1", 0) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
    ids=lambda line: line[:60],
)
async def test_an_answer_that_is_none_is_not_handed_on(line):
    async with raw_upstream(saying(line, then=hang)) as upstream, link(upstream.url) as port:
        status, headers, _ = await ask(port)
    assert status == 502
    assert headers["X-Onward"] == "upstream-malformed"


EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"


async def shut(_reader, _writer):
    """Close the connection, politely."""


UNFINISHED = {
    "a reset in mid-body": saying(LENGTH, b"x" * 100, then=reset),
    "less than was promised": saying(LENGTH, b"x" * 100, then=shut),
    "chunks without an end": saying(CHUNKED, b"3\r\nxxx\r\n", then=shut),
    "silence": saying(LENGTH, b"x" * 100, then=hang),
    "a trickle that never ends": saying(CHUNKED, then=trickle),
    "more than is taken": saying(CHUNKED, *([b"2000\r\n" + b"x" * 0x2000 + b"\r\n"] * 9), b"0\r\n\r\n"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("case", UNFINISHED)
async def test_an_answer_that_does_not_end_as_it_should_is_visibly_broken_off(case, version):
    bounds = Bounds(answer_seconds=5, silence_seconds=0.5, whole_seconds=1.5, answer_bytes=50_000)
    async with raw_upstream(UNFINISHED[case]) as upstream, link(upstream.url, bounds=bounds) as port:
        with pytest.raises(ConnectionResetError):
            await ask(port, version=version)
        await until(lambda: upstream.open == 0)


@pytest.mark.parametrize("said", [b"", CHUNKED], ids=["before the answer", "in its midst"])
async def test_a_visitor_who_leaves_takes_the_upstream_along(said):
    async with raw_upstream(saying(said, then=hang)) as upstream, link(upstream.url) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: upstream.heads)
        assert upstream.open == 1
        writer.close()
        await until(lambda: upstream.open == 0)


async def test_a_visitor_who_does_not_read_keeps_the_upstream_waiting_and_is_given_up():
    sent = 0

    async def flood(_reader, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**30)
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 2**16)
                await writer.drain()
                sent += 2**16

    bounds = Bounds(silence_seconds=0.5, answer_bytes=2**30)
    async with raw_upstream(flood) as upstream, link(upstream.url, bounds=bounds) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: upstream.heads and upstream.open == 0)
        writer.close()
    assert sent < 2**25, "what two sockets and we hold, far from all there is"


@pytest.mark.parametrize("answered_before", [0, 1])
async def test_nothing_is_asked_twice(answered_before):
    count = 0

    async def answer(_reader, writer):
        nonlocal count
        count += 1
        if count > answered_before:
            return False
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    async with raw_upstream(answer) as upstream, link(upstream.url) as port:
        for _ in range(answered_before):
            assert (await ask(port))[0] == 200
        status, headers, _ = await ask(port)
    assert status == 502
    assert headers["X-Onward"] == "upstream-hung-up"
    assert len(upstream.heads) == answered_before + 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1"]
)
async def test_a_target_that_only_we_can_reach_is_not_asked(host):
    async with (
        raw_upstream(saying(EMPTY)) as upstream,
        link(f"http://{host}:{upstream.port}", private_allowed=False) as port,
    ):
        status, headers, _ = await ask(port)
    assert upstream.heads == []
    assert (status, headers["X-Onward"]) in {(403, "private-target"), (502, "upstream-unreachable")}
    assert status == 403 or host == "127.1", "aiohttp takes no such address in the first place"


async def test_a_name_that_leads_elsewhere_at_the_second_look_is_not_followed():
    """What counts is the address that is connected to: a name's answer may have changed since it was looked at."""
    async with raw_upstream(saying(EMPTY)) as upstream, open_proxy(private_allowed=False) as http:

        class Rebinding(aiohttp.abc.AbstractResolver):
            async def resolve(self, host, port=0, family=0):
                address = {"hostname": host, "host": "127.0.0.1", "port": port}
                return [{**address, "family": family, "proto": 0, "flags": 0}]

            async def close(self):
                """Nothing is held."""

        http.connector._resolver = Rebinding()
        with pytest.raises(aiohttp.ClientConnectorError, match="not a public address"):
            await http.get(f"http://public.example:{upstream.port}/")
        assert upstream.heads == []


async def test_a_target_that_is_the_link_itself_ends():
    target, asked = listen_once(), 0
    async with link(f"http://127.0.0.1:{target}/one") as port:

        async def through(reader, writer):
            """Lead what comes to the target's port to the collector's."""
            nonlocal asked
            asked += 1
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)

            async def pump(source, sink):
                while part := await source.read(2**16):
                    sink.write(part)
                sink.close()

            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

        async with await asyncio.start_server(through, "127.0.0.1", target):
            status, _, _ = await ask(port)
    assert status == 508
    assert asked == MOST_RELAYS


async def test_no_service_worker_is_taken_from_a_target():
    async with raw_upstream(saying(then=hang)) as upstream, link(upstream.url) as port:
        status, headers, _ = await ask(port, headers="Service-Worker: script\r\n")
    assert (status, headers["X-Onward"]) == (403, "no-service-workers")
    assert upstream.heads == []


# What the pass-through needs besides


@asynccontextmanager
async def relaying(url, bounds=PATIENT):
    """Give the port of a relay to one URL, whatever the method."""

    async def answer(http, request):
        try:
            return await relay(request, http, URL(url), own_headers={}, sent_headers={}, bounds=bounds)
        except UpstreamError as error:
            return web.Response(status=error.status, text=error.why)

    async with open_upstreams() as http, door(partial(answer, http)) as port:
        yield port


async def echo(request):
    return web.Response(
        body=await request.read(), headers={"X-Length": request.headers.get("Content-Length", "")}
    )


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_handed_on_as_it_was_sent(chunked):
    body = b"z" * 300_000

    async def pieces():
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    async with (
        door(echo) as upstream,
        relaying(f"http://127.0.0.1:{upstream}/") as port,
        aiohttp.ClientSession() as visitor,
        visitor.post(
            f"http://127.0.0.1:{port}/", data=pieces() if chunked else body, expect100=True
        ) as answer,
    ):
        assert await answer.read() == body
        assert answer.headers["X-Length"] == ("" if chunked else str(len(body)))


@pytest.mark.parametrize("length", ["Content-Length: 2000", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_large_is_refused(length):
    bounds = Bounds(request_bytes=1000)
    body = b"z" * 2000 if "Length" in length else b"7d0\r\n" + b"z" * 2000 + b"\r\n0\r\n\r\n"
    async with door(echo) as upstream, relaying(f"http://127.0.0.1:{upstream}/", bounds) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n\r\n".encode() + body)
        async with asyncio.timeout(WITHIN):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"body-too-large")
