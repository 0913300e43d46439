"""What a visitor, a bot and a stranger get: a real collector on a real socket, its lines in a real Redis."""

import asyncio
import subprocess
from hashlib import md5

import aiohttp
import pytest
from aiohttp import web
from processes import SCRIPTS, healthy, running
from redis.asyncio import Redis
from test_health import MACHINE_SECONDS
from yarl import URL

from collector.event import Event, decode_params
from embedded.ports import free_port

LINKS = """
{"id": 1, "slug": "one", "campaign": "Summer Sale", "target_url": {"ios": "https://apps.example/i?a=b%2Fc", "android": "market://details?id=a.b&referrer=utm_source%3Dgoogle", "default": "https://web.example/"}}
{"id": 2, "target_url": {"ios": "https://apps.example/i"}}
{"id": 3, "enabled": false, "target_url": {"default": "https://web.example/"}}
{"id": 4, "starts_at": "2999-01-01T00:00:00Z", "target_url": {"default": "https://web.example/"}}
{"id": 6, "forward_query": true, "target_url": {"default": "https://web.example/?c={click_id}"}}
{"id": 5, "expires_at": "2000-01-01T00:00:00Z", "target_url": {"default": "https://web.example/"}}
"""  # noqa: E501
UPSTREAM = free_port()
PROXIED = (
    f'{{"id": 7, "slug": "page", "mode": "proxy", "forward_query": true, "target_url": '
    f'{{"ios": "market://details?id=a.b", "default": "http://127.0.0.1:{UPSTREAM}/base?a=1"}}}}'
)
TOPICS = frozenset({"clicks", "orphans"})
IPHONE = {"User-Agent": "iPhone"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("collector")


@pytest.fixture(scope="module")
def base(directory, redis_server):
    port = free_port()
    environ = {
        "PORT": port,
        "HOST": "127.0.0.1",
        "WEB_CONCURRENCY": 2,
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{directory}/onward.db",
        "JOURNAL_DIR": directory / "journal",
        "TRUSTED_PROXIES": "127.0.0.0/8",
        "PROXY_PRIVATE": 1,
        "TZ": "UTC",
    }
    (directory / "links.jsonl").write_text(LINKS + PROXIED)
    subprocess.run(
        [SCRIPTS / "collector", "links", "import", directory / "links.jsonl"],
        env={name: str(value) for name, value in environ.items()},
        check=True,
        timeout=60,
    )
    with running(directory, "collector", "serve", answers=lambda _child: healthy(port), **environ):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def redis(base, redis_server):
    """Give a client of a Redis whose queue is empty. (Emptied whole, it would get all again from the journal.)"""
    async with Redis.from_url(redis_server.url) as client:
        await client.delete("click_queue")
        yield client


@pytest.fixture
async def client(base):
    async with aiohttp.ClientSession(base) as session:
        yield session


async def ask(client, path, headers=IPHONE, method="GET"):
    url = URL(str(client._base_url).rstrip("/") + path, encoded=True)
    async with client.request(method, url, headers=headers, allow_redirects=False) as answer:
        await answer.read()
        return answer


async def events(redis, count):
    """Wait for `count` lines in Redis and take them."""
    async with asyncio.timeout(30):
        while await redis.llen("click_queue") < count:
            await asyncio.sleep(0.01)
    lines = await redis.lpop("click_queue", count + 100)
    assert len(lines) == count
    return [Event.decode(line, TOPICS) for line in lines]


@pytest.mark.parametrize(
    ("user_agent", "target"),
    [
        ("iPhone", "https://apps.example/i?a=b%2Fc"),
        ("Android", "market://details?id=a.b&referrer=utm_source%3Dgoogle"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0", "https://web.example/"),
        ("", "https://web.example/"),
        ("x" * 8000, "https://web.example/"),
    ],
    ids=lambda value: value[:20],
)
async def test_the_platform_decides_the_target_and_it_leaves_byte_for_byte(client, redis, user_agent, target):
    answer = await ask(client, "/click/1/go?click=c1", {"User-Agent": user_agent})
    assert answer.status == 307
    assert answer.headers["Location"] == target
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert answer.headers["Server"] == "onward"
    (event,) = await events(redis, 1)
    params = decode_params(event.params)
    assert (event.topic, event.path, event.user_agent) == ("clicks", "/t/click", user_agent.encode())
    assert (params[b"campaign_link_id"], params[b"click"], params[b"slug"]) == (b"1", b"c1", b"one")
    assert params[b"redirect_url"].decode() == target


async def test_a_visitor_without_a_user_agent_is_redirected_and_recorded(client, redis):
    answer = await ask(client, "/click/1/go", {"User-Agent": ""})
    assert answer.headers["Location"] == "https://web.example/"
    (event,) = await events(redis, 1)
    assert event.user_agent == b""


async def test_a_link_without_a_target_for_this_device_is_404_and_still_a_click(client, redis):
    answer = await ask(client, "/click/2/go", {"User-Agent": "Android"})
    assert (answer.status, answer.headers["X-Onward"], answer.headers["Content-Length"]) == (
        404,
        "no-target",
        "0",
    )
    (event,) = await events(redis, 1)
    assert decode_params(event.params)[b"redirect_url"] is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/click/4711/go", "unknown"),
        ("/click/abc/go", "unknown"),
        ("/click/-1/go", "unknown"),
        ("/click//go", "unknown"),
        ("/click/1234567890123456789/go", "unknown"),
        ("/click/%31/go", "unknown"),  # nothing is decoded
        ("/click/3/go", "disabled"),
        ("/click/4/go", "not_started"),
        ("/click/5/go", "expired"),
    ],
)
async def test_a_link_that_is_not_there_is_an_orphan(client, redis, path, reason):
    answer = await ask(client, path + "?x=1")
    assert (answer.status, answer.headers["X-Onward"]) == (404, f"{reason.replace('_', '-')}-link")
    (event,) = await events(redis, 1)
    params = decode_params(event.params)
    assert (event.topic, params[b"reason"].decode(), params[b"path"].decode()) == ("orphans", reason, path)
    assert params[b"reqparams"] == b"x=1"


async def test_a_slug_leads_to_its_link_and_is_the_same_event(client, redis):
    answer = await ask(client, "/one?qr=1")
    assert (answer.status, answer.headers["Location"]) == (302, "https://apps.example/i?a=b%2Fc")
    assert answer.headers["Cache-Control"] == "no-store"
    (event,) = await events(redis, 1)
    params = decode_params(event.params)
    assert (params[b"campaign_link_id"], params[b"slug"], params[b"trigger"]) == (b"1", b"one", b"qr")


async def test_an_unknown_slug_is_an_orphan_and_a_reserved_one_is_no_path(client, redis):
    answer = await ask(client, "/One")
    assert (answer.status, answer.headers["X-Onward"]) == (404, "unknown-link")
    (event,) = await events(redis, 1)
    assert decode_params(event.params)[b"path"] == b"/One"
    for path in ("/api", "/console", "/t", "/apple-x", "/one/", "/one/rest", "/%6fne", "/" + "a" * 65):
        answer = await ask(client, path)
        assert (answer.status, answer.headers["X-Onward"]) == (404, "no-such-path"), path
    assert await redis.llen("click_queue") == 0


async def test_a_client_hint_chooses_the_target_where_the_user_agent_tells_nothing(client, redis):
    headers = {"User-Agent": "Mozilla/5.0", "Sec-CH-UA-Platform": '"Android"'}
    answer = await ask(client, "/click/1/go", headers)
    assert answer.headers["Location"] == "market://details?id=a.b&referrer=utm_source%3Dgoogle"
    (event,) = await events(redis, 1)
    params = decode_params(event.params)
    assert params[b"lookup_key"] == md5(f"{event.ip}.".encode(), usedforsecurity=False).hexdigest().encode()


async def test_a_link_that_wants_the_request_passed_on_gets_it_and_says_so(client, redis):
    answer = await ask(client, "/click/6/go?x=1&u=//evil.example")
    location = answer.headers["Location"]
    (event,) = await events(redis, 1)
    params = decode_params(event.params)
    assert location == f"https://web.example/?c={params[b'event_id'].decode()}&x=1&u=%2F%2Fevil.example"
    assert params[b"redirect_url"].decode() == location


async def test_head_of_what_is_no_link_records_nothing(client, redis):
    answer = await ask(client, "/click/4711/go", method="HEAD")
    assert answer.status == 404
    await ask(client, "/click/1/go")
    (event,) = await events(redis, 1)
    assert event.topic == "clicks"


async def test_head_is_answered_alike_and_marked(client, redis):
    answer = await ask(client, "/click/1/go", method="HEAD")
    assert (answer.status, answer.headers["Location"]) == (307, "https://apps.example/i?a=b%2Fc")
    (event,) = await events(redis, 1)
    assert decode_params(event.params)[b"signals"] == b"head"


async def test_what_headers_say_reaches_the_line(client, redis):
    headers = {
        **IPHONE,
        "X-Forwarded-For": "198.51.100.7, 127.0.0.1",
        "Referer": "https://user:pw@News.example.org:8443/a?b",
        "Sec-Purpose": "prefetch;anonymous-client-ip",
        "Sec-GPC": "1",
        "DNT": "1",
    }
    await ask(client, "/click/1/go", headers)
    (event,) = await events(redis, 1)
    params = decode_params(event.params)
    assert event.ip == "198.51.100.7"
    assert params[b"referer"] == b"news.example.org"
    assert params[b"signals"] == b"prefetch,anonymous_ip,gpc,dnt"


async def test_the_small_routes_answer_and_record_nothing(client, redis):
    for path, status, body in (
        ("/check", 200, b"OK"),
        ("/healthz", 200, b"OK"),
        ("/robots.txt", 200, b"User-agent: *\nDisallow: /\n"),
        ("/Click/1/go", 404, b""),
        ("/click/1/go/", 404, b""),
        ("//click/1/go", 404, b""),
        ("/", 404, b""),
    ):
        async with client.get(URL(str(client._base_url).rstrip("/") + path, encoded=True)) as answer:
            assert (answer.status, await answer.read()) == (status, body), path
    for path in ("/favicon.ico", "/apple-touch-icon-120x120.png"):
        async with client.get(path) as answer:
            assert (answer.content_type, len(await answer.read())) == ("image/gif", 43)
    for path, empty in (
        ("/.well-known/apple-app-site-association", {"applinks": {"apps": [], "details": []}}),
        ("/.well-known/assetlinks.json", []),
    ):
        async with client.get(path) as answer:
            assert (answer.status, await answer.json()) == (200, empty)
    assert await redis.llen("click_queue") == 0


async def test_other_methods_are_refused_and_say_what_is_allowed(client, redis):
    answer = await ask(client, "/click/1/go", method="POST")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    answer = await ask(client, "/click/1/go", method="OPTIONS")
    assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert await redis.llen("click_queue") == 0


async def test_every_click_of_many_at_once_is_recorded_once(client, redis):
    answers = await asyncio.gather(*(ask(client, f"/click/1/go?click={number}") for number in range(500)))
    assert {answer.status for answer in answers} == {307}
    found = [decode_params(event.params) for event in await events(redis, 500)]
    assert sorted(int(params[b"click"]) for params in found) == list(range(500))
    assert len({params[b"event_id"] for params in found}) == 500


async def test_a_changed_link_is_served_by_every_process_within_seconds(directory, client, redis, tmp_path):
    (tmp_path / "new.jsonl").write_text('{"id": 900, "target_url": {"default": "https://new.example/"}}\n')
    subprocess.run(
        [SCRIPTS / "collector", "links", "import", tmp_path / "new.jsonl"],
        env={"DATABASE_URL": f"sqlite:///{directory}/onward.db"},
        check=True,
        timeout=60,
    )
    async with asyncio.timeout(5 + MACHINE_SECONDS):
        asked = in_a_row = 0
        while in_a_row < 20:
            asked += 1
            answer = await ask(client, "/click/900/go", {**IPHONE, "Connection": "close"})
            in_a_row = in_a_row + 1 if answer.headers.get("Location") == "https://new.example/" else 0
    await events(redis, asked)  # the next test begins with none


async def test_a_proxied_page_is_one_click_and_what_it_loads_is_none(client, redis):
    async def page(request):
        return web.Response(text=request.path_qs, headers={"Server": "theirs", "Location": "/base/next"})

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", UPSTREAM).start()
    desktop = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0"}
    try:
        base = str(client._base_url).rstrip("/")
        for path, fetched in (("/page?b=2", "/base?a=1&b=2"), ("/page/x.css?v=3", "/base/x.css?a=1&v=3")):
            async with client.get(URL(base + path, encoded=True), headers=desktop) as answer:
                assert (answer.status, await answer.text()) == (200, fetched)
                assert answer.headers["Server"] == "onward"
                assert answer.headers["Location"] == "/page/next"
        for path, status in (("/page/../x", 400), ("/one/x.css", 404), ("/api/x", 404), ("/nobody/x", 404)):
            assert (await ask(client, path, desktop)).status == status
        (event,) = await events(redis, 1)
        params = decode_params(event.params)
        assert params[b"redirect_url"].decode() == f"http://127.0.0.1:{UPSTREAM}/base?a=1"
        by_id = await ask(client, "/click/7/go", IPHONE)
        assert (by_id.status, by_id.headers["Location"]) == (307, "market://details?id=a.b")
        await events(redis, 1)
    finally:
        await runner.cleanup()
    gone = await ask(client, "/page", desktop)
    assert (gone.status, gone.headers["X-Onward"]) == (502, "upstream-unreachable")
    await events(redis, 1)
