"""The in-app tracker: what apps and pages report arrives as lines, and nobody writes to a topic of ours."""

import asyncio
import json
import secrets

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import healthy, running
from redis.asyncio import Redis
from yarl import URL

from collector.event import Event, decode_params
from collector.inapp import InvalidReportError, reports_of_post
from embedded.ports import free_port

TOPICS = frozenset({"inapp", "shop", "clicks", "orphans"})
GIF = bytes.fromhex("47494638396101000100800100000000ffffff21f90401000001002c00000000010001000002024c01003b")


@pytest.fixture(scope="module")
def port(tmp_path_factory, redis_server):
    directory = tmp_path_factory.mktemp("collector")
    environ = {
        "PORT": free_port(),
        "HOST": "127.0.0.1",
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{directory}/onward.db",
        "JOURNAL_DIR": directory / "journal",
        "INAPP_TOPICS": "inapp,shop",
        "CORS_ORIGINS": "https://www.example.com",
    }
    with running(directory, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ):
        yield environ["PORT"]


@pytest.fixture
async def client(port):
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


@pytest.fixture
async def events(port, redis_server):
    """Give a function that waits for the lines of one user agent and takes them."""
    async with Redis.from_url(redis_server.url) as redis:

        async def of(user_agent, count):
            async with asyncio.timeout(30):
                while True:
                    lines = [
                        line
                        for line in await redis.lrange("click_queue", 0, -1)
                        if line.endswith(user_agent.encode())
                    ]
                    if len(lines) >= count:
                        assert len(lines) == count
                        return [Event.decode(line, TOPICS) for line in lines]
                    await asyncio.sleep(0.01)

        yield of


@pytest.fixture
def agent():
    return f"App/{secrets.token_hex(8)}"


@pytest.mark.parametrize(
    ("host", "target", "topic", "path", "params"),
    [
        ("localhost", "/t/ist?adid=A-B&network=7games", "inapp", "/t/ist", b"adid=A-B&network=7games"),
        ("localhost", "/t/ist", "inapp", "/t/ist", b"p"),
        ("shop.example.com", "/any/Path%20x?q=%FF+a", "shop", "/any/Path%20x", b"q=%FF+a"),
        ("SHOP.example.com:8080", "/", "shop", "/", b"p"),
        ("inapp", "/click/1/go?a=b", "inapp", "/click/1/go", b"a=b"),
        ("shop.example.com", "/t/x/y;z?a", "shop", "/t/x/y;z", b"a"),
    ],
)
async def test_a_request_is_one_event_as_it_was_sent(
    client, events, agent, host, target, topic, path, params
):
    headers = {"Host": host, "User-Agent": agent}
    async with client.get(
        URL(f"{str(client._base_url).rstrip('/')}{target}", encoded=True), headers=headers
    ) as answer:
        assert (answer.status, await answer.read()) == (200, GIF)
        assert answer.headers["Content-Type"] == "image/gif"
        assert answer.headers["Cache-Control"] == "no-store"
    (event,) = await events(agent, 1)
    assert (event.topic, event.path, event.params) == (topic, path, params)


async def test_what_every_host_is_asked_is_no_event_there_either(client, events, agent):
    headers = {"Host": "shop.example.com", "User-Agent": agent}
    for path in ("/robots.txt", "/favicon.ico", "/apple-touch-icon.png", "/healthz", "/check", "/readyz"):
        async with client.get(path, headers=headers) as answer:
            assert answer.status == 200, path
    async with client.head("/t/ist", headers=headers) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "43")
    async with client.get("/t/last", headers=headers):
        pass
    assert [event.path for event in await events(agent, 1)] == ["/t/last"]


async def test_nobody_names_a_topic_of_ours(client, events, agent):
    for host in ("clicks.example.com", "bots", "inapp.dead", "x.inapp.example.com"):
        async with client.get("/t/ist", headers={"Host": host, "User-Agent": agent}) as answer:
            assert answer.status == 200
    assert {event.topic for event in await events(agent, 4)} == {"inapp"}


async def test_a_list_is_one_event_each_in_its_order(client, events, agent):
    told = [
        {"event": "start", "adid": "A-B", "level": 3, "score": 1.5, "ok": True, "none": None},
        {"event": "buy now/ü", "items": ["a&b", "c=d"], "deep": {"x": [1]}},
        {},
    ]
    async with client.post("/t/session?app=7", json=told, headers={"User-Agent": agent}) as answer:
        assert (answer.status, await answer.read()) == (200, GIF)
    found = await events(agent, 3)
    assert [event.path for event in found] == ["/t/start", "/t/buy%20now/%C3%BC", "/t/session"]
    assert decode_params(found[0].params) == {
        b"app": b"7",
        b"adid": b"A-B",
        b"level": b"3",
        b"score": b"1.5",
        b"ok": b"true",
        b"none": None,
    }
    assert decode_params(found[1].params)[b"items"] == [b"a&b", b"c=d"]
    assert decode_params(found[1].params)[b"deep"] == b'{"x":[1]}'


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("text/plain;charset=UTF-8", b'{"event": "ping", "a": "b"}', ("/t/ping", {b"a": b"b"})),
        (
            "application/x-www-form-urlencoded",
            b"a=%C3%BC+x&b",
            ("/t/out", {b"a": "ü x".encode(), b"b": None}),
        ),
        ("text/ping", b"PING", ("/t/out", {b"from": b"https://a.example/", b"to": b"https://b.example/"})),
        ("", b"", ("/t/out", {b"p": None})),
    ],
    ids=["beacon", "form", "a ping", "empty"],
)
async def test_what_browsers_send_by_themselves_is_understood(
    client, events, agent, content_type, body, expected
):
    headers = {
        "User-Agent": agent,
        "Content-Type": content_type,
        "Ping-From": "https://a.example/",
        "Ping-To": "https://b.example/",
    }
    async with client.post("/t/out", data=body, headers=headers) as answer:
        assert answer.status == 200
    (event,) = await events(agent, 1)
    assert (event.path, decode_params(event.params)) == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"no json", "no JSON"),
        (b"[" * 50_000, "no JSON"),
        (b"[1]", "event 0 is no object"),
        (b'[{}, {"event": 1}]', "event 1: `event` is no name"),
        (b'{"event": ""}', "`event` is no name"),
        (json.dumps([{}] * 501).encode(), "501 events"),
        (json.dumps({"event": "x" * 2000}).encode(), "longer than"),
    ],
)
async def test_a_body_that_reports_nothing_is_refused_whole_with_a_sentence(client, body, why):
    async with client.post("/t/out", data=body, headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (
            422,
            "application/problem+json; charset=utf-8",
        )
        problem = json.loads(await answer.text())
        assert why in problem["detail"]


@given(
    body=st.binary(max_size=200),
    content_type=st.sampled_from(["", "text/plain", "application/x-www-form-urlencoded"]),
)
def test_whatever_the_body_holds_it_forges_no_field_and_no_line(body, content_type):
    try:
        reports = reports_of_post("/t/x", b"a=b", content_type, body, [])
    except InvalidReportError:
        return
    for report in reports:
        line = Event("203.0.113.42", 1769860800, "inapp", report.path, report.params, b"agent").encode()
        assert Event.decode(line, TOPICS).user_agent == b"agent"
        assert b"\n" not in line


async def test_only_pages_of_allowed_origins_may_read_the_answers(client):
    for origin, allowed in (
        ("https://www.example.com", True),
        ("https://evil.example", False),
        (None, False),
    ):
        headers = {"Access-Control-Request-Method": "POST", **({"Origin": origin} if origin else {})}
        async with (
            client.options("/t/x", headers=headers) as preflight,
            client.get("/t/x", headers=headers) as answer,
        ):
            assert preflight.status == 204
            assert preflight.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
            for one in (preflight, answer):
                assert one.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
                assert one.headers["Vary"] == "Origin"
    async with client.options("/click/1/go", headers={"Origin": "https://www.example.com"}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers
