"""The web site behind the collector: real sites, well-behaved and not, and what of their visitors is recorded."""

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import aiohttp
import pytest
import test_proxy
from aiohttp import WSMsgType, web
from processes import healthy, running
from redis.asyncio import Redis
from test_proxy import (
    CHUNKED,
    LENGTH,
    PATIENT,
    SOON,
    WITHIN,
    door,
    echo,
    hang,
    lines_of,
    listen_once,
    raw_upstream,
    reset,
    saying,
    shut,
    until,
)

from collector import websocket
from collector.app import open_collector
from collector.client_address import client_address, peers_trusted
from collector.event import Event, decode_params
from collector.forwarded import seen_location
from collector.frontend import open_frontend
from collector.passthrough import page_at_once, pass_through
from collector.relay import Bounds
from collector.settings import CollectorSettings
from embedded.ports import free_port
from process.at_once import AtOnce
from process.board import Board
from process.ports import listen, open_door

FROM_NEWS = "Referer: https://user:secret@News.Example.org:8443/secret?secret#secret\r\n"
DOCUMENT = "Sec-Fetch-Dest: document\r\n"
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 4\r\n%s\r\npage"
ASSET = b"HTTP/1.1 200 OK\r\nContent-Type: text/css\r\nContent-Length: 4\r\n\r\nbody"
NO_ACT = b"HTTP/1.1 304 Not Modified\r\n%s\r\n"


@pytest.fixture(scope="module")
async def opened(redis_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("collector")
    settings = CollectorSettings(
        redis_url=redis_server.url,
        database_url=f"sqlite:///{directory}/onward.db",
        journal_dir=directory / "journal",
        hsts_seconds=1,
        tls_cert="x",
        tls_key="x",
    )
    async with open_collector(settings, Board(1)) as collector:
        yield collector


@pytest.fixture
async def collector(opened, redis_server):
    """Give a collector that has recorded nothing yet, and a way to its lines."""
    async with Redis.from_url(redis_server.url) as redis:
        await redis.delete("click_queue")
        opened.recorded.clear()
        yield opened
        await events(opened)  # nothing is left for the next test


async def events(collector):
    """Take all events that were recorded, once they are in Redis."""
    expected = collector.recorded.total()
    async with Redis.from_url(collector.settings.redis_urls[0]) as redis:
        async with asyncio.timeout(WITHIN):
            while await redis.llen("click_queue") < expected:
                await asyncio.sleep(0.01)
        lines = await redis.lpop("click_queue", expected) if expected else []
        assert await redis.llen("click_queue") == 0
    collector.recorded.clear()
    return [Event.decode(line, {"referrals"}) for line in lines]


async def domains(collector):
    return [decode_params(event.params).get(b"domain", b"").decode() for event in await events(collector)]


def with_settings(collector, trusted="", **settings):
    return replace(
        collector,
        settings=collector.settings.model_copy(update=settings),
        address_of=client_address(trusted),
        trusts=peers_trusted(trusted),
    )


@asynccontextmanager
async def site(collector, origin, bounds=PATIENT, patience_seconds=WITHIN):
    """Give the port of a collector with this frontend, and the frontend; no connection outlives its request."""
    async with open_frontend(origin, bounds, patience_seconds) as frontend:
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        quick = AtOnce(partial(page_at_once, collector, frontend), collector.end_turn)
        opened = await open_door(listener, partial(pass_through, collector, frontend), None, quick)
        try:
            yield port, frontend
        finally:
            await opened.close()
        assert not frontend.http.connector._acquired
        assert not frontend.sockets.connector._acquired
        assert frontend.documents.incoming_bytes == 0


async def ask(port, path="/", **request):
    return await test_proxy.ask(port, path, **request)


def page(**headers):
    """Give a site's answer: a page with these headers."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return saying(HTML % lines.encode())


# What is relayed


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_any_method_is_handed_on_with_its_body(collector, method):
    async with (
        door(echo) as upstream,
        site(collector, f"http://127.0.0.1:{upstream}") as (port, _),
        aiohttp.ClientSession() as visitor,
        visitor.request(method, f"http://127.0.0.1:{port}/form", data=b"z" * 300_000) as answer,
    ):
        assert await answer.read() == b"z" * 300_000
        assert answer.headers["Server"] == "onward"
    assert await events(collector) == []


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?",
        "/a%2Fb/../c;x=1?y=%20&z=+&%C3%BC",
        "//double//slash",
        "/'\"<>`{|}^[]@:!$&()*,=~",
        "/a?b?c/../d",
    ],
)
async def test_a_path_is_asked_for_as_it_was_sent(collector, target):
    async with raw_upstream(saying(ASSET)) as upstream, site(collector, upstream.url) as (port, _):
        await ask(port, target)
        await ask(port, f"http://elsewhere.example{target}")
    for head in upstream.heads:
        assert head.startswith(f"GET {target.removesuffix('?')} HTTP/1.1\r\n")


async def test_an_answer_stays_as_it_is(collector):
    body = gzip.compress(b"body")
    answer = saying(
        b"HTTP/1.1 206 Some\r\nContent-Encoding: gzip\r\nContent-Type: text/css\r\nContent-Range: bytes 0-9/99\r\n"
        b'ETag: "1"\r\nSet-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nStrict-Transport-Security: max-age=99\r\n'
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    async with raw_upstream(answer) as upstream, site(collector, upstream.url) as (port, _):
        status, headers, received = await ask(
            port, headers="Range: bytes=0-9\r\nAccept-Encoding: gzip\r\nCookie: e=f\r\n"
        )
        asked = lines_of(upstream.heads[0])
    assert {"range: bytes=0-9", "accept-encoding: gzip", "cookie: e=f"} <= set(asked)
    assert (status, received) == (206, body)
    assert headers.getall("Set-Cookie") == ["a=b; Path=/", "c=d"]
    assert headers["ETag"] == '"1"'
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Range"] == "bytes 0-9/99"
    assert headers["Strict-Transport-Security"] == "max-age=1"


STRANGERS = (
    "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n"
    "Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nCF-Connecting-IP: 6.6.6.6\r\n"
)


@pytest.mark.parametrize(
    ("trusted", "told"),
    [
        ("", ["127.0.0.1", "here.example", "http", 'for=127.0.0.1;host="here.example";proto=http']),
        ("127.0.0.1", ["6.6.6.6", "evil.example", "https", 'for=6.6.6.6;host="evil.example";proto=https']),
    ],
)
async def test_the_frontend_is_asked_under_its_own_name_and_told_who_asks(collector, trusted, told):
    collector = with_settings(collector, trusted)
    async with raw_upstream(saying(ASSET)) as upstream, site(collector, upstream.url) as (port, _):
        await ask(port, headers=STRANGERS)
    asked = lines_of(upstream.heads[0])
    names = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"]
    said = [line for line in asked if line.startswith((*names, "x-real", "cf-"))]
    assert sorted(said) == sorted(f"{name}: {value}" for name, value in zip(names, told, strict=True))
    assert f"host: 127.0.0.1:{upstream.port}" in asked


async def test_an_address_with_colons_is_told_as_the_standard_wants_it(collector):
    collector = with_settings(collector, "127.0.0.1")
    async with raw_upstream(saying(ASSET)) as upstream, site(collector, upstream.url) as (port, _):
        await ask(port, headers="X-Forwarded-For: 2001:db8::1\r\n")
    assert 'forwarded: for="[2001:db8::1]";host="here.example";proto=http' in lines_of(upstream.heads[0])


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("http://127.0.0.1:8081/dir/?a=b#c", "/dir/?a=b#c"),
        ("HTTP://127.0.0.1:8081", "/"),
        ("http://127.0.0.1:8081//evil.example/", "/.//evil.example/"),
        ("http://127.0.0.1:8081/\\evil.example/", "/./\\evil.example/"),
        ("/dir/", "/dir/"),
        ("../dir", "../dir"),
        ("//127.0.0.1:8081/", "//127.0.0.1:8081/"),
        ("https://127.0.0.1:8081/", "https://127.0.0.1:8081/"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("http://127.0.0.1:8081@evil.example/", "http://127.0.0.1:8081@evil.example/"),
        ("http://127.0.0.1:x/", "http://127.0.0.1:x/"),
        ("http://elsewhere.example/", "http://elsewhere.example/"),
    ],
)
def test_where_the_frontend_sends_visitors_to_itself_it_sends_them_to_us(location, seen):
    assert seen_location(location, "http://127.0.0.1:8081") == seen


async def test_a_site_that_redirects_to_itself_is_not_followed(collector):
    async def answer(_reader, writer):
        writer.write(
            f"HTTP/1.1 302 Found\r\nLocation: {upstream.url}/again\r\nContent-Type: text/html\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        return True

    async with raw_upstream(answer) as upstream, site(collector, upstream.url) as (port, _):
        status, headers, _ = await ask(port, "/again", headers=FROM_NEWS)
        assert len(upstream.heads) == 1
    assert (status, headers["Location"]) == (302, "/again")
    assert await events(collector) == []


async def test_a_collector_that_is_its_own_frontend_ends(collector):
    async with site(collector, "http://127.0.0.1:1") as (port, frontend):
        frontend.origin = f"http://127.0.0.1:{port}"
        assert (await ask(port, headers=FROM_NEWS))[0] == 508
    assert await events(collector) == []


# Which page views are recorded


async def test_a_page_view_from_elsewhere_is_one_referral_of_the_host_alone(collector):
    async with raw_upstream(page()) as upstream, site(collector, upstream.url) as (port, _):
        status, _, body = await ask(
            port, "/recipes?utm_source=newsletter&secret=1", headers=f"{FROM_NEWS}User-Agent: Me\r\n"
        )
    assert (status, body) == (200, b"page")
    (event,) = await events(collector)
    assert (event.topic, event.path, event.ip, event.user_agent) == (
        "referrals",
        "/t/referral",
        "127.0.0.1",
        b"Me",
    )
    params = decode_params(event.params)
    assert params.keys() == {
        b"clicked_at",
        b"domain",
        b"event_id",
        b"host",
        b"path",
        b"registrable_domain",
        b"utm_source",
    }
    assert params[b"domain"] == b"news.example.org"
    assert params[b"registrable_domain"] == b"example.org"
    assert params[b"host"] == b"here.example"
    assert params[b"path"] == b"/recipes"
    assert b"secret" not in event.encode()


@pytest.mark.parametrize(
    ("answer", "headers", "settings", "expected"),
    [
        (page(), "", {}, []),
        (page(), "", {"referrals_direct": True}, [""]),
        (page(), "Referer: about:blank\r\n", {}, []),
        (page(), "Referer: http://HERE.example:8080/x\r\n", {"referrals_direct": True}, []),
        (page(), FROM_NEWS, {"site_hosts": frozenset({"news.example.org"})}, []),
        (page(), "Referer: android-app://com.slack\r\n", {}, ["com.slack"]),
        (saying(ASSET), FROM_NEWS, {}, []),
        (saying(ASSET), FROM_NEWS + DOCUMENT, {}, []),
        (saying(NO_ACT % b""), FROM_NEWS, {}, ["news.example.org"]),
        (saying(NO_ACT % b""), f"{FROM_NEWS}Sec-Fetch-Dest: style\r\n", {}, []),
        (
            saying(b"HTTP/1.1 404 No\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"),
            FROM_NEWS,
            {},
            [],
        ),
    ],
)
async def test_what_is_a_referral(collector, answer, headers, settings, expected):
    asking = with_settings(collector, **settings)
    async with raw_upstream(answer) as upstream, site(asking, upstream.url) as (port, _):
        await ask(port, headers=headers)
    assert await domains(collector) == expected


async def test_a_prefetch_is_recorded_as_one_and_a_head_not_at_all(collector):
    async with raw_upstream(page()) as upstream, site(collector, upstream.url) as (port, _):
        await ask(port, method="HEAD", headers=FROM_NEWS)
        await ask(port, headers=f"{FROM_NEWS}Sec-Purpose: prefetch;prerender\r\n")
    (event,) = await events(collector)
    assert decode_params(event.params)[b"signals"] == b"prefetch"


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        ("https://news.example.org/" + "x" * 8000, ["news.example.org"]),
        ("https://" + "x" * 8000 + "/", []),
        ("https://news.example.org/%00%0d%0aHost:%20evil", ["news.example.org"]),
        ("https://news%0d%0a.example.org/", []),
        ("https://news.example.org/\xff\xfe", ["news.example.org"]),
        ("\xff", []),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_hostile_referer_costs_nobody_anything(collector, referer, expected):
    async with raw_upstream(page()) as upstream, site(collector, upstream.url) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: here.example\r\nConnection: close\r\nReferer: %s\r\n\r\n"
            % referer.encode("latin-1")
        )
        async with asyncio.timeout(WITHIN):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert await domains(collector) == expected


@pytest.mark.parametrize(
    "line", [b"Referer: https://a\0b/", b"Referer: https://a/\rX: y", b"Referer : https://a/"]
)
async def test_a_referer_that_breaks_the_request_never_reaches_the_frontend(collector, line):
    async with raw_upstream(page()) as upstream, site(collector, upstream.url) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here.example\r\nConnection: close\r\n%s\r\n\r\n" % line)
        async with asyncio.timeout(WITHIN):
            assert b" 400 " in (await reader.read()).partition(b"\r\n")[0]
        writer.close()
        assert upstream.heads == []
    assert await events(collector) == []


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("WWW.Example.com:8080", b"www.example.com"),
        ("[::1]:80", b"::1"),
        ("127.0.0.1", b"127.0.0.1"),
        ('evil"; x=y', None),
        ("a b", None),
        ("x@y", None),
        ("../..", None),
        ("", None),
    ],
)
async def test_a_host_that_is_made_up_gets_no_further(collector, host, told):
    async with raw_upstream(page()) as upstream, site(collector, upstream.url) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{FROM_NEWS}\r\n".encode())
        async with asyncio.timeout(WITHIN):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        asked = lines_of(upstream.heads[0])
    assert ("x-forwarded-host" in {line.partition(":")[0] for line in asked}) == (told is not None)
    (event,) = await events(collector)
    assert decode_params(event.params).get(b"host") == told


async def test_the_event_is_in_the_journal_before_the_first_byte_and_the_body_does_not_wait_for_it(collector):
    go_on, safe = asyncio.Event(), asyncio.Event()

    class Lane:
        """A disk, or a Redis, that takes its time."""

        async def safe(self):
            await safe.wait()

    def write_down(event):
        collector.recorded[event.topic] += 0
        written.append(event)
        return Lane()

    async def stream(request):
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    written = []
    slow = replace(collector)
    slow.write_down = write_down
    async with (
        door(stream) as upstream,
        site(slow, f"http://127.0.0.1:{upstream}") as (port, _),
        aiohttp.ClientSession() as visitor,
        asyncio.timeout(WITHIN),
        visitor.get(f"http://127.0.0.1:{port}/", headers={"Referer": "https://a.example/"}) as answer,
    ):
        assert await answer.content.readany() == b"first"
        assert len(written) == 1
        go_on.set()
        assert await answer.read() == b"second"
        safe.set()
    assert len(written) == 1


# When there is no answer

NONE = {
    "upstream-unreachable": (None, 502),
    "upstream-hung-up": (saying(then=reset), 502),
    "upstream-too-slow": (saying(then=hang), 504),
    "upstream-malformed": (saying(b"SSH-2.0-OpenSSH\r\n\r\n", then=hang), 502),
}


@pytest.mark.parametrize("why", NONE)
async def test_without_an_answer_the_visitor_is_told_why_and_the_visit_is_recorded_once(collector, why):
    answer, expected = NONE[why]
    async with raw_upstream(answer or saying()) as upstream:
        if answer is None:
            upstream.port = listen_once()
        async with site(collector, upstream.url, SOON) as (port, frontend):
            status, headers, body = await ask(port, "/deep", headers=FROM_NEWS + DOCUMENT)
            assert (await ask(port, "/style.css", headers=FROM_NEWS))[0] == expected
            assert frontend.failed == {why: 2}
    assert (status, body) == (expected, b"")
    assert headers["X-Onward"] == why
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "onward"
    assert await domains(collector) == ["news.example.org"]


UNFINISHED = {
    "a reset in mid-body": saying(LENGTH, b"x" * 100, then=reset),
    "less than was promised": saying(LENGTH, b"x" * 100, then=shut),
    "chunks without an end": saying(CHUNKED, b"3\r\nxxx\r\n", then=shut),
    "silence": saying(LENGTH, b"x" * 100, then=hang),
}


@pytest.mark.parametrize("case", UNFINISHED)
async def test_a_page_that_breaks_off_was_viewed_and_is_not_kept(collector, case):
    answer = UNFINISHED[case]

    async def html(reader, writer):
        return await answer(reader, Prefixed(writer))

    class Prefixed:
        """Says of what is written first that it is a page."""

        def __init__(self, writer):
            self._writer = writer

        def write(self, data):
            self._writer.write(data.replace(b"200 OK\r\n", b"200 OK\r\nContent-Type: text/html\r\n"))

        def __getattr__(self, name):
            return getattr(self._writer, name)

    bounds = Bounds(answer_seconds=5, silence_seconds=0.5, whole_seconds=5)
    async with raw_upstream(html) as upstream, site(collector, upstream.url, bounds) as (port, frontend):
        with pytest.raises(ConnectionResetError):
            await ask(port, headers=FROM_NEWS)
        await until(lambda: upstream.open == 0)
        assert len(frontend.documents) == 0
    assert await domains(collector) == ["news.example.org"]


async def test_more_than_was_promised_is_cut_off(collector):
    async with (
        raw_upstream(saying(HTML % b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")) as upstream,
        site(collector, upstream.url) as (port, _),
    ):
        for _ in range(2):
            assert (await ask(port, headers=FROM_NEWS))[2] == b"page"
    assert await domains(collector) == ["news.example.org"] * 2


@pytest.mark.parametrize("said", [b"", CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/html\r\n\r\n")])
async def test_a_visitor_who_leaves_was_there_and_takes_the_connection_along(collector, said):
    async with (
        raw_upstream(saying(said, then=hang)) as upstream,
        site(collector, upstream.url) as (port, frontend),
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{FROM_NEWS}\r\n".encode())
        await until(lambda: upstream.heads)
        writer.close()
        await until(lambda: upstream.open == 0)
        await until(lambda: not frontend.http.connector._acquired)
        assert frontend.failed == {}
    assert await domains(collector) == ["news.example.org"]


async def test_a_collector_that_stops_leaves_nobody_waiting_and_loses_no_visit(redis_server, tmp_path):
    port = free_port()
    environ = {
        "PORT": port,
        "HOST": "127.0.0.1",
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": tmp_path / "journal",
    }
    over = asyncio.Event()

    async def answer(request):
        if "Upgrade" in request.headers:
            return await chat(request)
        await over.wait()
        return web.Response()

    async with Redis.from_url(redis_server.url) as redis, door(answer) as upstream:
        await redis.delete("click_queue")
        environ["FRONTEND_URL"] = f"http://127.0.0.1:{upstream}"
        context = running(tmp_path, "collector", "serve", answers=lambda _child: healthy(port), **environ)
        process = await asyncio.to_thread(context.__enter__)
        async with aiohttp.ClientSession() as visitor:
            socket = await visitor.ws_connect(f"http://127.0.0.1:{port}/")
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET / HTTP/1.1\r\nHost: here.example\r\n{FROM_NEWS}\r\n".encode())
            async with asyncio.timeout(WITHIN):
                assert await socket.receive_str() == "127.0.0.1"
            await asyncio.to_thread(context.__exit__, None, None, None)
            over.set()
            writer.close()
            await socket.close()
        assert process._process.returncode == 0, "gone in time, not killed"
        (line,) = await redis.lpop("click_queue", 10)
    assert b"&domain=news.example.org&" in line


# Pages from memory


def counting(answers):
    """Give an answer of these bytes in turn, the last one for ever."""
    left = list(answers)

    async def answer(_reader, writer):
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        return True

    return answer


async def test_a_fresh_page_comes_from_memory_and_is_viewed_as_often_as_it_is_asked_for(collector):
    async with (
        raw_upstream(page(Cache_Control="max-age=60", ETag='"1"')) as upstream,
        site(collector, upstream.url) as (port, frontend),
    ):
        for _ in range(3):
            status, headers, body = await ask(port, headers=FROM_NEWS)
            assert (status, body) == (200, b"page")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Length"] == "4"
        assert headers["Server"] == "onward"
        assert headers["Age"] == "0"
        assert (await ask(port, method="HEAD"))[1]["Content-Length"] == "4"
        assert frontend.served == {"fresh": 3}
        assert len(upstream.heads) == 1
    assert await domains(collector) == ["news.example.org"] * 3


@pytest.mark.parametrize(
    "mine",
    [
        {},
        {"Cookie": "a=b"},
        {"Accept-Encoding": "gzip"},
        {"If-None-Match": '"1"'},
        {"If-None-Match": '"0"'},
        {"Cache-Control": "no-cache"},
        {"Range": "bytes=0-1"},
        {"Referer": "https://news.example.org/"},
        {"Host": "other.example"},
    ],
)
@pytest.mark.parametrize("public", ["", "public, "])
async def test_a_page_that_is_answered_at_once_is_the_one_that_would_be_answered_anyway(
    collector, public, mine
):
    told = page(ETag='"1"', Cache_Control=f"{public}max-age=60", X="ü", Server="theirs", Age="5")
    async with (
        raw_upstream(told) as upstream,
        site(collector, upstream.url) as (port, frontend),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as visitor,
    ):
        first = {name: value for name, value in mine.items() if name in ("Host", "Accept-Encoding")}
        async with visitor.get("/", headers=first):
            answers = []
        for close in (True, False, False):
            async with visitor.get("/", headers=mine | ({"Connection": "close"} if close else {})) as answer:
                kept = {
                    name: value
                    for name, value in answer.headers.items()
                    if name not in ("Connection", "Date")
                }
                answers.append((answer.status, kept, await answer.read()))
        from_memory = frontend.served["fresh"]
        assert len(upstream.heads) == 4 - from_memory
    assert from_memory in (0, 3)
    assert {answer[1].pop("Age") for answer in answers} <= {"5", "6"}
    assert answers[1:] == answers[:1] * 2
    assert await domains(collector) == (["news.example.org"] * 3 if "Referer" in mine else [])


async def test_a_visitor_who_leaves_before_a_page_from_memory_is_nothing_to_report(collector, caplog):
    async with (
        raw_upstream(page(Cache_Control="max-age=60")) as upstream,
        site(collector, upstream.url) as (port, _),
    ):
        await ask(port)
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET / HTTP/1.1\r\nHost: here.example\r\nConnection: close\r\n{FROM_NEWS}\r\n".encode()
            )
            writer.transport.abort()
        await until(lambda: collector.recorded["referrals"])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert set(await domains(collector)) == {"news.example.org"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ('If-None-Match: "1"', 304),
        ('If-None-Match: W/"0", W/"1"', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "0"', 200),
        ("If-Modified-Since: Sat, 31 Jan 2026 12:00:00 GMT", 304),
        ("If-Modified-Since: Sat, 31 Jan 2026 11:59:59 GMT", 200),
        ("If-Modified-Since: yesterday", 200),
        ('If-None-Match: "0"\r\nIf-Modified-Since: Sat, 31 Jan 2026 12:00:00 GMT', 200),
    ],
)
async def test_a_visitor_who_has_the_page_is_told_so_from_memory(collector, headers, status):
    modified = "Sat, 31 Jan 2026 12:00:00 GMT"
    async with (
        raw_upstream(page(Cache_Control="max-age=60", ETag='W/"1"', Last_Modified=modified)) as upstream,
        site(collector, upstream.url) as (port, _),
    ):
        await ask(port)
        answered, received, body = await ask(port, headers=f"{headers}\r\n{FROM_NEWS}")
        assert len(upstream.heads) == 1
    assert (answered, body) == (status, b"page" if status == 200 else b"")
    assert received["ETag"] == 'W/"1"'
    assert received["Cache-Control"] == "max-age=60"
    assert ("Content-Length" in received) == (status == 200)
    assert await domains(collector) == ["news.example.org"]


@pytest.mark.parametrize(
    ("validator", "condition"),
    [({"ETag": '"1"'}, 'if-none-match: "1"'), ({"Last_Modified": "x"}, "if-modified-since: x")],
)
async def test_a_page_without_a_date_is_asked_about_each_time(collector, validator, condition):
    answer = counting(
        [
            HTML % "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in validator.items()).encode(),
            NO_ACT % b"X-New: 1\r\n",
        ]
    )
    async with raw_upstream(answer) as upstream, site(collector, upstream.url) as (port, frontend):
        await ask(port)
        for mine in ("", 'If-None-Match: "0"\r\n'):
            status, headers, body = await ask(port, headers=FROM_NEWS + mine)
            assert (status, body, headers["X-New"]) == (200, b"page", "1")
        assert frontend.served == {"confirmed": 2}
        for head in upstream.heads[1:]:
            assert condition in lines_of(head)
            assert 'if-none-match: "0"' not in lines_of(head)
    assert await domains(collector) == ["news.example.org"] * 2


async def test_a_changed_page_replaces_the_old_one(collector):
    new = (HTML % b'ETag: "2"\r\nCache-Control: max-age=60\r\n').replace(b"page", b"new!")
    answer = counting([HTML % b'ETag: "1"\r\n', new])
    async with raw_upstream(answer) as upstream, site(collector, upstream.url) as (port, _):
        assert [(await ask(port))[2] for _ in range(3)] == [b"page", b"new!", b"new!"]
        assert len(upstream.heads) == 2


@pytest.mark.parametrize(
    ("headers", "mine"),
    [
        ({"Cache_Control": "no-store"}, ""),
        ({"Cache_Control": "private, max-age=60"}, ""),
        ({"Cache_Control": "max-age=60", "Set_Cookie": "id=1"}, ""),
        ({"Cache_Control": "max-age=60", "Vary": "Cookie"}, ""),
        ({"Cache_Control": "max-age=60"}, "Cookie: id=1\r\n"),
        ({"Cache_Control": "max-age=60"}, "Authorization: Basic eDp5\r\n"),
        ({"Cache_Control": "public, max-age=60"}, "Authorization: Basic eDp5\r\n"),
        ({"Cache_Control": "public, max-age=60"}, "Range: bytes=0-\r\n"),
    ],
)
async def test_what_is_for_one_visitor_is_told_to_no_other(collector, headers, mine):
    async with raw_upstream(page(**headers)) as upstream, site(collector, upstream.url) as (port, frontend):
        await ask(port, headers=mine)
        await ask(port, headers=mine)
        assert len(upstream.heads) == 2
        assert len(frontend.documents) == 0


async def test_a_stranger_with_a_made_up_host_gets_a_page_of_his_own(collector):
    async def answer(_reader, writer):
        host = next(line for line in lines_of(upstream.heads[-1]) if line.startswith("x-forwarded-host"))
        body = host.partition(": ")[2].encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: max-age=60\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        return True

    async with (
        raw_upstream(answer) as upstream,
        site(collector, upstream.url) as (port, _),
        aiohttp.ClientSession() as visitor,
    ):
        for host in ("evil.example", "www.example.com", "evil.example"):
            async with visitor.get(f"http://127.0.0.1:{port}/", headers={"Host": host}) as told:
                assert await told.text() == host


# A copy in place of an answer


async def gone(upstream, frontend):
    """Take a site away."""
    frontend.origin = f"http://127.0.0.1:{listen_once()}"
    upstream.heads.clear()


async def test_when_the_site_is_down_its_last_page_is_shown_marked_as_stale_and_the_visit_recorded(collector):
    async with raw_upstream(page(ETag='"1"')) as upstream, site(collector, upstream.url) as (port, frontend):
        await ask(port, "/?utm_source=a")
        await gone(upstream, frontend)
        for query, mine in (
            ("", ""),
            ("?utm_source=b", "Cookie: a=b\r\n"),
            ("", "Cache-Control: no-cache\r\n"),
        ):
            status, headers, body = await ask(port, f"/{query}", headers=FROM_NEWS + mine)
            assert (status, body) == (200, b"page")
            assert headers["X-Onward"] == "stale: upstream-unreachable"
            assert headers["Warning"].startswith("110 ")
            assert headers["Age"].isdecimal()
        assert (await ask(port, headers=f'If-None-Match: "1"\r\n{FROM_NEWS}'))[0] == 304
        assert (await ask(port, "/?page=2", headers=FROM_NEWS))[0] == 502
        assert (await ask(port, headers=f"Authorization: x\r\n{FROM_NEWS}"))[0] == 502
        assert frontend.served == {"stale": 4}
        frontend.origin = upstream.url
        async with asyncio.timeout(WITHIN):
            while "X-Onward" in (await ask(port))[1]:
                await asyncio.sleep(0.05)
    assert await domains(collector) == ["news.example.org"] * 6


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_site_that_says_it_is_broken_is_as_good_as_down(collector, status):
    answer = counting([HTML % b"", b"HTTP/1.1 %d Oops\r\nContent-Length: 4\r\n\r\noops" % status])
    async with raw_upstream(answer) as upstream, site(collector, upstream.url) as (port, _):
        await ask(port)
        answered, headers, body = await ask(port, headers=FROM_NEWS)
        assert (answered, body) == (200, b"page")
        assert headers["X-Onward"] == f"stale: upstream-says-{status}"
        assert (await ask(port, "/other"))[::2] == (status, b"oops")
    assert await domains(collector) == ["news.example.org"]


async def test_a_page_that_must_not_be_shown_stale_is_not(collector):
    answer = page(Cache_Control="stale-if-error=0")
    async with raw_upstream(answer) as upstream, site(collector, upstream.url) as (port, frontend):
        await ask(port)
        await gone(upstream, frontend)
        assert (await ask(port))[0] == 502


async def test_a_slow_page_is_shown_stale_and_fetched_anew_behind_the_visitors_backs(collector):
    go_on = asyncio.Event()

    async def answer(_reader, writer):
        new = len(upstream.heads) > 1
        if new:
            await go_on.wait()
        writer.write((HTML % b"").replace(b"page", b"new!" if new else b"page"))
        return True

    async with (
        raw_upstream(answer) as upstream,
        site(collector, upstream.url, patience_seconds=0.3) as (port, _),
    ):
        await ask(port)
        for _ in range(3):
            _, headers, body = await ask(
                port, headers=f"{FROM_NEWS}Cookie: secret=1\r\nAccept-Language: de\r\n"
            )
            assert (headers["X-Onward"], body) == ("stale: upstream-too-slow", b"page")
        assert len(upstream.heads) == 3, (
            "the first page, a visitor who waited, and one request in their place"
        )
        behind = lines_of(upstream.heads[-1])
        assert "accept-language: de" in behind
        assert not any(line.startswith(("cookie", "referer: ")) for line in behind)
        go_on.set()
        async with asyncio.timeout(WITHIN):
            while (await ask(port))[2] != b"new!":
                await asyncio.sleep(0.05)
    assert await domains(collector) == ["news.example.org"] * 3


# WebSockets


async def chat(request):
    """Answer what is said; `bye` ends it."""
    socket = web.WebSocketResponse(protocols=["b", "a"])
    await socket.prepare(request)
    await socket.send_str(request.headers.get("X-Forwarded-For", ""))
    async for message in socket:
        if message.data == "bye":
            await socket.close(code=4001, message=b"so long")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


async def test_a_websocket_is_handed_on_both_ways(collector):
    async with (
        door(chat) as upstream,
        site(collector, f"http://127.0.0.1:{upstream}") as (port, _),
        aiohttp.ClientSession() as visitor,
        asyncio.timeout(WITHIN),
        visitor.ws_connect(
            f"http://127.0.0.1:{port}/",
            protocols=["c", "a"],
            autoping=False,
            headers={"Referer": "https://a.example/"},
        ) as socket,
    ):
        assert socket.protocol == "a"
        assert await socket.receive_str() == "127.0.0.1"
        await socket.send_str("täxt")
        assert await socket.receive_str() == "täxt"
        await socket.send_bytes(b"\xff" * 100_000)
        assert await socket.receive_bytes() == b"\xff" * 100_000
        await socket.ping(b"?")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (WSMsgType.PONG, b"?")
        await socket.send_str("bye")
        end = await socket.receive()
        assert (end.type, end.data, end.extra) == (WSMsgType.CLOSE, 4001, "so long")
    assert await events(collector) == []


async def test_a_websocket_ends_at_both_ends_when_one_is_gone(collector):
    ended = asyncio.Event()

    async def listen(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        ended.set()
        return socket

    async with (
        door(listen) as upstream,
        site(collector, f"http://127.0.0.1:{upstream}") as (port, frontend),
        aiohttp.ClientSession() as visitor,
        asyncio.timeout(WITHIN),
    ):
        socket = await visitor.ws_connect(f"http://127.0.0.1:{port}/")
        socket._response.connection.transport.abort()
        await ended.wait()
        await until(lambda: not frontend.sockets.connector._acquired)
        await socket.close()


async def test_a_silent_websocket_is_given_up(collector, monkeypatch):
    monkeypatch.setattr(websocket, "IDLE_SECONDS", 0.3)
    async with (
        door(chat) as upstream,
        site(collector, f"http://127.0.0.1:{upstream}") as (port, _),
        aiohttp.ClientSession() as visitor,
        asyncio.timeout(WITHIN),
        visitor.ws_connect(f"http://127.0.0.1:{port}/") as socket,
    ):
        await socket.receive_str()
        end = await socket.receive()
        assert (end.type, end.data) == (WSMsgType.CLOSE, 1001)


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, (502, "upstream-unreachable")),
        (saying(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), (403, "upstream-refused")),
        (saying(b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n"), (502, "upstream-malformed")),
        (saying(then=reset), (502, "upstream-hung-up")),
    ],
)
async def test_a_websocket_that_cannot_be_had_is_refused_and_no_page_view(collector, answer, expected):
    async with raw_upstream(answer or page()) as upstream, site(collector, upstream.url) as (port, frontend):
        if answer is None:
            await gone(upstream, frontend)
        status, headers, _ = await ask(port, headers=UPGRADE + FROM_NEWS)
    assert (status, headers["X-Onward"]) == expected
    assert await events(collector) == []


async def test_a_page_that_is_asked_to_be_a_websocket_is_a_page(collector):
    async with raw_upstream(page()) as upstream, site(collector, upstream.url) as (port, _):
        assert (await ask(port, headers=UPGRADE + FROM_NEWS))[::2] == (200, b"page")
        assert (await ask(port, headers=UPGRADE.replace("==", "") + FROM_NEWS))[0] == 400
    assert await domains(collector) == ["news.example.org"]


# Requests within requests

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"
        + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n" + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n" + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n" + HIDDEN,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n Content-Length: 99\r\n\r\n" + HIDDEN,
        b"GET / HTTP/1.1\nHost: x\n\n" + HIDDEN,
    ],
    ids=lambda request_: repr(request_[31:90]),
)
async def test_a_request_whose_end_could_be_disputed_reaches_nobody(collector, request_):
    async with raw_upstream(saying(ASSET)) as upstream, site(collector, upstream.url, SOON) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_.replace(b"%d", b"%d" % (5 + len(HIDDEN))))
        async with asyncio.timeout(WITHIN):
            status_lines = [
                line for line in (await reader.read()).split(b"\r\n") if line.startswith(b"HTTP/1.")
            ]
        writer.close()
        assert status_lines
        assert b" 400 " in status_lines[0]
        assert not any("hidden" in head for head in upstream.heads)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: %d\r\n\r\n",
        b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nContent-Length: %d\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n",
    ],
)
async def test_a_body_that_looks_like_a_request_stays_a_body(collector, headers):
    seen = []

    async def read(request):
        seen.append((request.method, request.raw_path, await request.read(), "Upgrade" in request.headers))
        return web.Response(text="read")

    ending = b"\r\n0\r\n\r\n" if b"chunked" in headers else b""
    async with door(read) as upstream, site(collector, f"http://127.0.0.1:{upstream}") as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(WITHIN):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + headers % len(HIDDEN) + HIDDEN + ending)
            assert (await reader.readuntil(b"read")).startswith(b"HTTP/1.1 200 OK")
            writer.write(b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).count(b"HTTP/1.1 ") == 1
        writer.close()
    assert seen == [("POST", "/", HIDDEN, False), ("GET", "/next", b"", False)]


async def test_a_body_that_nobody_reads_is_no_next_request(collector):
    async with site(collector, f"http://127.0.0.1:{listen_once()}") as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (len(HIDDEN) + 1) + HIDDEN)
        async with asyncio.timeout(WITHIN):
            answer = await reader.read()
        writer.close()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"HTTP/1.1 502 " in answer
