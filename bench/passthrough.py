"""The web site behind `collector serve` beside bare aiohttp, one core each, in turns: part of `make bench`.

Two pairs. A page from memory, whose every view is a referral shipped to a real Redis, beside a bare handler that
returns the same bytes; and a style sheet that is relayed beside the plainest reverse proxy that aiohttp allows,
both in front of the same upstream. Server on one core; wrk, upstream and Redis on another.
"""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rig import CLIENT_CORE, SERVER_CORE, empty, need, run, serve
from shared import Shared
from table import Row, in_turns, rows
from wrk import load

from embedded.ports import free_port
from embedded.server import Child

PAGE_BYTES, ASSET_BYTES = 8_000, 16_000

HEADERS = f"""
PAGE_HEADERS = {{
    "Content-Type": "text/html; charset=utf-8", "Cache-Control": "public, max-age=3600", "ETag": '"abc"',
    "Last-Modified": "Sat, 31 Jan 2026 12:00:00 GMT", "Vary": "Accept-Encoding",
}}
PAGE, ASSET = b"p" * {PAGE_BYTES}, b"a" * {ASSET_BYTES}
"""

# Says what it is asked for with hardly any work of its own.
UPSTREAM = (
    HEADERS
    + """
import asyncio, sys
import uvloop

def answer(headers, body):
    lines = "".join(f"{name}: {value}\\r\\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\\r\\n{lines}Content-Length: {len(body)}\\r\\n\\r\\n".encode() + body

ANSWERS = {b"/ ": answer(PAGE_HEADERS, PAGE), b"/a": answer({"Content-Type": "text/css", "ETag": '"def"'}, ASSET)}

class Upstream(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(ANSWERS[data[4:6]])

async def main():
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

uvloop.run(main())
"""
)

BARE_HANDLER = (
    HEADERS
    + """
import sys
import uvloop
from aiohttp import web

async def page(request):
    return web.Response(body=PAGE, headers=PAGE_HEADERS)

app = web.Application()
app.router.add_get("/", page)
uvloop.install()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""
)

BARE_PROXY = """
import sys
import aiohttp, uvloop
from aiohttp import web
from yarl import URL

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}

def passed(headers):
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP]

async def proxy(request):
    url = URL(f"http://127.0.0.1:{sys.argv[2]}{request.raw_path}", encoded=True)
    async with request.app["http"].request(
        request.method, url, headers=passed(request.headers), allow_redirects=False
    ) as upstream:
        response = web.StreamResponse(status=upstream.status, headers=passed(upstream.headers))
        await response.prepare(request)
        async for part in upstream.content.iter_any():
            await response.write(part)
        await response.write_eof()
        return response

async def http(app):
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
        app["http"] = session
        yield

app = web.Application()
app.cleanup_ctx.append(http)
app.router.add_route("*", "/{path:.*}", proxy)
uvloop.install()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""

# What a browser sends; a few hundred sites, by ever new paths of theirs.
REQUESTS = """
local n = 0
local headers = {{
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Encoding"] = "gzip, deflate, br", ["Accept-Language"] = "en-GB,en;q=0.5", ["Sec-Fetch-Dest"] = "document",
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
}}
request = function()
  n = n + 1
  {each}
  return wrk.format("GET", "{path}", headers)
end
"""
REFERRED = 'headers["Referer"] = "https://www.site" .. n % 300 .. ".example/" .. n'

PAGE, ASSET_PATH = "/", "/a/style.css"
BARE = "bare handler, the same page"
PROXY = "bare aiohttp reverse proxy, a style sheet"


def measure(shared: Shared) -> list[Row]:
    """Give every row, in the processor's time of each."""
    need(wrk="wrk", taskset="util-linux")
    effort, redis = shared.effort, shared.redis
    with ExitStack() as stack:
        directory = shared.directory / "passthrough"
        directory.mkdir()
        by = {}
        for name, path, each in (("page", PAGE, ""), ("referred", PAGE, REFERRED), ("asset", ASSET_PATH, "")):
            by[name] = directory / f"{name}.lua"
            by[name].write_text(REQUESTS.format(path=path, each=each))

        def start(role: str, source: str, *arguments: int, core: int = SERVER_CORE) -> Child:
            port = free_port()
            argv = [sys.executable, "-c", source, port, *arguments]
            return serve(stack, directory / role, port, argv, path=ASSET_PATH, core=core)

        (port,) = start("upstream", UPSTREAM, core=CLIENT_CORE).program.ports
        handler, proxy = start("handler", BARE_HANDLER), start("proxy", BARE_PROXY, port)
        collector = run(
            stack,
            shared.collector("pages", redis.url, links=0, FRONTEND_URL=f"http://127.0.0.1:{port}"),
        )
        asked = {
            BARE: (handler, by["referred"]),
            "a page from memory": (collector, by["page"]),
            "a page from memory, a referral each": (collector, by["referred"]),
            PROXY: (proxy, by["asset"]),
            "a style sheet, relayed": (collector, by["asset"]),
        }

        if effort.quick:
            del asked["a page from memory"]

        def cost(child: Child, asks: Path, seconds: float = effort.seconds) -> float:
            found = load(child, asks, seconds)
            empty(redis)
            return found.cpu_us

        for child, asks in asked.values() if effort.warm_seconds else ():
            cost(child, asks, effort.warm_seconds)
        found = in_turns({name: partial(cost, *one) for name, one in asked.items()}, effort.rounds)
    beside = {name: PROXY if "style sheet" in name else BARE for name in asked if name not in (BARE, PROXY)}
    return rows(found, "CPU µs", beside)
