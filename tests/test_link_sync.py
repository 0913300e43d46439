"""The sync API as another system calls it: closed to whoever has no secret, exact to whoever has."""

import asyncio
import json
import subprocess
from hashlib import sha1

import aiohttp
import pytest
from processes import SCRIPTS, healthy, running
from test_hostile import say

from embedded.ports import free_port
from embedded.postgres import running_postgres

SECRET = "s3cret ü"
LINK = {
    "id": 46,
    "slug": "winter",
    "campaign": "Winter Sale",
    "target_url": {"default": "https://a.example/"},
}


def environ_of(tmp_path, redis_server, **more):
    return {
        "PORT": free_port(),
        "HOST": "127.0.0.1",
        "WEB_CONCURRENCY": 2,
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{tmp_path}/onward.db",
        "JOURNAL_DIR": tmp_path / "journal",
        **more,
    }


def collector(tmp_path, environ):
    return running(tmp_path, "collector", "serve", answers=lambda _child: healthy(environ["PORT"]), **environ)


@pytest.fixture(scope="module")
def environ(tmp_path_factory, redis_server):
    tmp_path = tmp_path_factory.mktemp("sync")
    environ = environ_of(tmp_path, redis_server, API_SECRET_KEY=SECRET)
    with collector(tmp_path, environ):
        yield environ


@pytest.fixture
async def client(environ):
    async with aiohttp.ClientSession(f"http://127.0.0.1:{environ['PORT']}") as session:
        yield session


def signed(text, secret=SECRET, salt="pinch"):
    """Give headers and form of a call, as the other system makes them."""
    pepper = sha1((salt + text + secret).encode(), usedforsecurity=False).hexdigest()
    return {"headers": {"X-Api-Salt": salt}, "data": {"campaign_link": text, "pepper": pepper}}


async def call(client, verb, record, **call_with):
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)
    async with client.post(f"/api/v3/{verb}", **(call_with or signed(text))) as answer:
        return answer.status, answer.headers.get("X-Onward"), await answer.text()


async def until_served(client, path, location, seconds=20):
    """Every process serves it: each of many connections meets some process."""
    async with asyncio.timeout(seconds):
        right = 0
        while right < 20:
            async with (
                aiohttp.ClientSession(client._base_url) as fresh,
                fresh.get(path, allow_redirects=False) as answer,
            ):
                right = right + 1 if answer.headers.get("Location") == location else 0
            await asyncio.sleep(0.02)


async def test_what_the_other_system_creates_and_deletes_is_served_by_every_process(client):
    assert await call(client, "create", LINK) == (200, None, '{"status": "ok"}')
    await until_served(client, "/winter", "https://a.example/")
    changed = {"id": 46, "target_url": {"default": "https://b.example/?ü"}}
    assert (await call(client, "create", changed))[0] == 200
    await until_served(client, "/winter", "https://b.example/?ü")  # the slug was not named, and stays
    assert (await call(client, "delete", {"id": 46}))[0] == 200
    await until_served(client, "/click/46/go", None)
    assert (await call(client, "delete", {"id": 46}))[0] == 200, "deleting what is not there is fine"


@pytest.mark.parametrize(
    "call_with",
    [
        signed(json.dumps(LINK), secret="another"),
        {**signed(json.dumps(LINK)), "headers": {"X-Api-Salt": "grain"}},
        {**signed(json.dumps(LINK)), "headers": {}},
        signed(json.dumps(LINK), salt=""),
        {"headers": {"X-Api-Salt": "pinch"}, "data": {"campaign_link": json.dumps(LINK)}},
        {"headers": {"X-Api-Salt": "pinch"}, "data": {"campaign_link": json.dumps(LINK), "pepper": "ÿ€"}},
        {"headers": {"X-Api-Salt": "pinch"}, "data": b"\xff\x00%%&&=="},
        {"headers": {"X-Api-Salt": "pinch"}, "json": LINK},
        {},
    ],
)
@pytest.mark.parametrize("verb", ["create", "delete"])
async def test_whoever_has_no_secret_learns_nothing_and_changes_nothing(client, environ, verb, call_with):
    async with client.post(f"/api/v3/{verb}", **call_with) as answer:
        assert (answer.status, await answer.read(), answer.headers["X-Onward"]) == (404, b"", "no-such-path")
    listing = subprocess.run(
        [SCRIPTS / "collector", "links", "list", "--json"],
        env={name: str(value) for name, value in environ.items()},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Winter Sale" not in listing.stdout


@pytest.mark.parametrize(
    ("verb", "record", "status", "field"),
    [
        ("create", "no json", 400, "record"),
        ("create", "[1]", 400, "record"),
        ("create", "[" * 50_000, 400, "record"),
        ("create", "", 400, "record"),
        ("create", {"campaign": "no id"}, 422, "id"),
        ("create", {"id": "46"}, 422, "id"),
        ("create", {"id": 10**30}, 422, "id"),
        ("create", {"id": 1, "colour": "red"}, 422, "colour"),
        ("create", {"id": 1, "target_url": {"ios": "/relative"}}, 422, "target_url[ios]"),
        ("create", {"id": 1, "target_url": {"ios": "javascript:alert(1)"}}, 422, "target_url[ios]"),
        ("create", {"id": 1, "slug": "taken"}, 422, "slug"),
        ("delete", {"id": None}, 422, "id"),
        ("delete", '{"id": 1e400}', 422, "id"),
    ],
)
async def test_a_record_that_is_no_link_is_refused_with_the_field_and_a_sentence(
    client, verb, record, status, field
):
    assert (await call(client, "create", {"id": 9, "slug": "taken"}))[0] == 200
    answered, why, text = await call(client, verb, record)
    assert (answered, why) == (status, "invalid-link")
    problem = json.loads(text)
    assert (problem["status"], problem["field"]) == ("error", field)
    assert problem["error"]


async def test_without_a_secret_the_api_is_closed_unless_it_is_opened(tmp_path, redis_server):
    for api_open, status in (("0", 404), ("1", 200)):
        environ = environ_of(tmp_path, redis_server, WEB_CONCURRENCY=1, API_OPEN=api_open)
        with collector(tmp_path, environ):
            async with aiohttp.ClientSession(f"http://127.0.0.1:{environ['PORT']}") as client:
                for call_with in (
                    signed(json.dumps(LINK), secret=""),
                    {"data": {"campaign_link": '{"id":1}'}},
                ):
                    assert (await call(client, "create", LINK, **call_with))[0] == status


async def test_a_database_that_is_away_is_said_and_the_collector_goes_on(
    tmp_path, redis_server, open_directory
):
    folder, database_port = open_directory / "sync", free_port()
    with running_postgres(folder, port=database_port) as url:
        environ = environ_of(
            tmp_path, redis_server, WEB_CONCURRENCY=1, API_SECRET_KEY=SECRET, DATABASE_URL=url
        )
        serving = collector(tmp_path, environ)
        serving.__enter__()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{environ['PORT']}") as client:
            assert (await call(client, "create", LINK))[0] == 200
    async with aiohttp.ClientSession(f"http://127.0.0.1:{environ['PORT']}") as client:
        status, why, text = await call(client, "create", LINK)
        assert (status, why) == (503, "links-database-away")
        assert "postgres" not in text
    serving.__exit__(None, None, None)


HEAD = b"POST /api/v3/create HTTP/1.1\r\nHost: x\r\nX-Api-Salt: pinch\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status", "why"),
    [
        (HEAD + b"Content-Length: 999999999\r\n\r\n", 413, "body-too-large"),
        (
            HEAD
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n"
            + b"a" * 65536
            + b"\r\n"
            + b"40000\r\n",
            413,
            "body-too-large",
        ),
        (b"GET /api/v3/create HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method-not-allowed"),
        (b"PUT /api/v3/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", 405, "method-not-allowed"),
    ],
    ids=["large", "chunked", "get", "put"],
)
async def test_a_body_is_bounded_and_other_methods_are_told_what_is_allowed(
    environ, request_bytes, status, why
):
    more = b"a" * 262144 if b"chunked" in request_bytes else b""
    answered, head, _ = await say(environ["PORT"], request_bytes + more)
    assert (answered, f"X-Onward: {why}\r\n" in head) == (status, True)
    assert status != 405 or "Allow: POST, OPTIONS\r\n" in head


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(client):
    async with asyncio.timeout(10):
        assert (await call(client, "create", LINK, expect100=True, **signed(json.dumps(LINK))))[0] == 200
