"""Strangers on raw sockets: every answer is bounded, says nothing about us, and leads where the link leads."""

import asyncio
import re
import secrets
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import SCRIPTS, healthy, running
from redis.asyncio import Redis

from collector.event import Event, decode_params
from embedded.ports import free_port

CASES = yaml.safe_load((Path(__file__).parent / "data" / "hostile_requests.yml").read_text("utf-8"))
TOPICS = frozenset({"clicks", "orphans"})
LINK = (
    '{"id": 1, "slug": "one", "target_url": {"default": "https://web.example/a?b=c"}}\n'
    '{"id": 2, "forward_query": true, "target_url": {"default": "https://web.example/?k={click}"}}\n'
)
GOOD = b"GET /click/1/go HTTP/1.1\r\nHost: x\r\nUser-Agent: iPhone\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory, redis_server):
    directory = tmp_path_factory.mktemp("collector")
    environ = {
        "PORT": free_port(),
        "HOST": "127.0.0.1",
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{directory}/onward.db",
        "JOURNAL_DIR": directory / "journal",
    }
    (directory / "links.jsonl").write_text(LINK)
    subprocess.run(
        [SCRIPTS / "collector", "links", "import", directory / "links.jsonl"],
        env={name: str(value) for name, value in environ.items()},
        check=True,
        timeout=60,
    )
    with running(
        directory, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ
    ) as collector:
        yield environ["PORT"]
        assert "Traceback" not in collector.program.log.read_text("utf-8")


async def say(port, request, seconds=15):
    """Send bytes; give the answer's status, its headers as text, and whether the connection is still open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ")[1])
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                following = await reader.read(100)
            except ConnectionError:
                following = b""
            return status, head, following.startswith(b"HTTP/1.1 200")
    finally:
        writer.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_a_hostile_request_gets_a_short_answer(port, case):
    request = case["request"].encode("latin-1").replace(b"REPEAT", b"a" * case.get("repeat", 0))
    status, head, still_open = await say(port, request)
    assert (status, still_open) == (case["status"], case.get("open", False))
    assert "Server: onward\r\n" in head
    assert len(head) < 1000
    assert status == 307 or "X-Onward: " in head
    assert "aiohttp" not in head
    assert (await say(port, GOOD))[0] == 307, "others are served as ever"


async def test_a_request_that_never_ends_is_ended_and_does_not_keep_others_waiting(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /click/1/go HTTP/1.1\r\nHost")
    assert (await say(port, GOOD))[0] == 307
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"X-Onward: request-too-slow" in answer


async def test_a_visitor_who_leaves_at_once_is_counted_once(port, redis_server):
    async with Redis.from_url(redis_server.url) as redis:
        mark = secrets.token_hex(8).encode()
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GOOD.replace(b"/go", b"/go?click=" + mark))
            await writer.drain()
            writer.close()
        async with asyncio.timeout(30):
            while sum(mark in line for line in await redis.lrange("click_queue", 0, -1)) != 20:
                await asyncio.sleep(0.01)


# What is sent as it stands may hold anything but what ends a line or a header.
text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
evil = st.sampled_from(
    [
        "//evil.example",
        "/\\evil.example",
        "%0d%0aLocation:%20https://evil.example",
        "@evil.example",
        "javascript:1",
    ]
)


@given(
    path=st.sampled_from(["/click/1/go", "/click/2/go", "/one"]),
    query=st.one_of(text, evil),
    host=st.one_of(text, evil),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_leads_a_visitor_elsewhere(port, path, query, host):
    query = re.sub(r"[ #]", "", query)
    status, head, _ = asyncio.run(
        say(port, f"GET {path}?u={query} HTTP/1.1\r\nHost: {host.strip()}\r\n\r\n".encode())
    )
    locations = re.findall(r"^location: (.*)$", head, re.MULTILINE | re.IGNORECASE)
    if status not in (302, 307):
        assert (status, locations) == (400, [])  # a Host that is none
        return
    (location,) = locations
    assert urlsplit(location.strip())[:2] == ("https", "web.example")


@pytest.mark.parametrize(
    "forged", ["\t1 clicks /t/click p x", " 9 bots /t/click a=b", "a\\r\\n127.0.0.1 1 clicks"]
)
async def test_no_header_forges_a_field_or_a_topic(port, redis_server, forged):
    mark = secrets.token_hex(8)
    request = (
        f"GET /click/1/go?click={mark}&x={forged.replace(' ', '%20')} HTTP/1.1\r\nHost: bots{forged.strip()}\r\n"
        f"User-Agent: {forged}\r\nReferer: {forged}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    )
    status, _, _ = await say(port, request.replace("\t", "%09").encode())
    assert status in (307, 400)
    if status == 400:
        return
    async with Redis.from_url(redis_server.url) as redis, asyncio.timeout(30):
        while not (
            lines := [line for line in await redis.lrange("click_queue", 0, -1) if mark.encode() in line]
        ):
            await asyncio.sleep(0.01)
    (line,) = lines
    event = Event.decode(line, TOPICS)
    assert (event.ip, event.topic, event.path) == ("127.0.0.1", "clicks", "/t/click")
    assert decode_params(event.params)[b"campaign_link_id"] == b"1"
