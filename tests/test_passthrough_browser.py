"""A real browser follows a link to the web site behind the collector: what it sees, and what is recorded of it."""

import asyncio
import os
import shutil
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from playwright.async_api import async_playwright
from processes import healthy, running
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from test_proxy import door

from collector.event import Event, decode_params
from embedded.ports import free_port
from embedded.redis import running_redis

SHOP, NEWS = "www.shop.test", "news.press.test"

RECIPES = """<!doctype html><title>Recipes</title><link rel="stylesheet" href="/style.css">
<h1>Recipes</h1><p id="said"></p><a id="more" href="/more">More</a>
<script>
  const socket = new WebSocket(`ws://${location.host}/chat`);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = (message) => { document.querySelector("#said").textContent = message.data; };
</script>"""


async def shop(request):
    """Answer as a static site with a chat."""
    if request.path == "/chat":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"you said {message.data}")
        return socket
    if request.path == "/style.css":
        return web.Response(text="h1 { color: rgb(1, 2, 3) }", content_type="text/css")
    if request.path == "/favicon.ico":
        return web.Response(status=404)
    headers = {"Cache-Control": "no-cache", "ETag": '"1"'}
    if request.headers.get("If-None-Match") == '"1"':
        return web.Response(status=304, headers=headers)
    return web.Response(text=RECIPES, content_type="text/html", headers=headers)


@pytest.fixture(scope="module")
async def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        unavailable = pytest.fail if os.environ.get("CI") else pytest.skip
        unavailable("Chromium is missing: install it (Debian: apt-get install chromium) and run this again.")
    arguments = [f"--host-resolver-rules=MAP {SHOP} 127.0.0.1,MAP {NEWS} 127.0.0.1", "--no-sandbox"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(browser, redis_url, directory):
    """Give the page of a news site that links to the shop, which is behind a collector."""
    port = free_port()

    async def news(_request):
        link = f"http://{SHOP}:{port}/recipes?utm_source=newsletter&secret=1"
        return web.Response(
            text=f'<a id="link" referrerpolicy="unsafe-url" href="{link}">Recipes</a>',
            content_type="text/html",
        )

    async with door(shop) as upstream, door(news) as news_port:
        environ = {
            "PORT": port,
            "HOST": "127.0.0.1",
            "REDIS_URL": redis_url,
            "DATABASE_URL": f"sqlite:///{directory}/onward.db",
            "JOURNAL_DIR": directory / "journal",
            "FRONTEND_URL": f"http://127.0.0.1:{upstream}",
        }
        context = running(directory, "collector", "serve", answers=lambda _child: healthy(port), **environ)
        process = await asyncio.to_thread(context.__enter__)
        visitor = await browser.new_context()
        try:
            page = await visitor.new_page()
            await page.goto(f"http://{NEWS}:{news_port}/secret/page?secret=2")
            yield page, process
        finally:
            await visitor.close()
            await asyncio.to_thread(context.__exit__, None, None, None)


async def follow(page, link):
    async with page.expect_navigation():
        await page.click(link)


async def sees_recipes(page):
    """Tell whether all of the shop's page is there: styled, and its chat connected."""
    assert await page.title() == "Recipes"
    assert await page.eval_on_selector("h1", "e => getComputedStyle(e).color") == "rgb(1, 2, 3)"
    await page.wait_for_function("document.querySelector('#said').textContent == 'you said hello'")


async def lines(redis):
    try:
        return await redis.lrange("click_queue", 0, -1)
    except RedisError:
        return []


async def test_a_visitor_from_another_site_is_one_referral_with_that_sites_domain(
    browser, redis, redis_server, tmp_path
):
    async with opened(browser, redis_server.url, tmp_path) as (page, process):
        await follow(page, "#link")
        await sees_recipes(page)
        await page.reload()
        await sees_recipes(page)
        await follow(page, "#more")
        await sees_recipes(page)
        async with asyncio.timeout(20):
            while not await lines(redis):
                await asyncio.sleep(0.05)
        log = process.program.log
    recorded = await lines(redis)  # the collector has ended: nothing comes any more
    events = [Event.decode(line, {"referrals"}) for line in recorded]
    for event in events:
        params = decode_params(event.params)
        assert params[b"domain"] == NEWS.encode()
        assert params[b"registrable_domain"] == b"press.test"
        assert params[b"host"] == SHOP.encode()
        assert params[b"path"] == b"/recipes"
        assert params[b"utm_source"] == b"newsletter"
        assert b"signals" not in params
        assert b"HeadlessChrome" in event.user_agent
    # A browser that reloads a page names its sender again; what is reached from our own page has none.
    assert len(events) == 2
    assert len({decode_params(event.params)[b"event_id"] for event in events}) == len(events)
    assert b"secret" not in b"".join(recorded)
    assert "secret" not in log.read_text("utf-8")


async def test_the_page_works_while_redis_is_down_and_its_referral_arrives_later(
    browser, tmp_path, redis_binary
):
    context = running_redis(tmp_path / "redis", binary=redis_binary)
    server = await asyncio.to_thread(context.__enter__)
    try:
        async with (
            Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as redis,
            opened(browser, server.url, tmp_path) as (page, _),
        ):
            await asyncio.to_thread(server.kill)
            await follow(page, "#link")
            await sees_recipes(page)
            assert await lines(redis) == []
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(30):
                while not await lines(redis):
                    await asyncio.sleep(0.1)
            (line,) = await lines(redis)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
    assert f"&domain={NEWS}&".encode() in line
