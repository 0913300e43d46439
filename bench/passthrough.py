"""The web site behind `collector serve` beside bare aiohttp, one core each, in turns: part of `make bench`.

Two pairs. A page from memory, whose every view is a referral shipped to a real Redis, beside a bare handler that
returns the same bytes; and a style sheet that is relayed beside the plainest reverse proxy that aiohttp allows,
both in front of the same upstream. Server on one core; wrk, upstream and Redis on another.

"""

import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rig import CLIENT_CORE, SCRIPTS, SERVER_CORE, WARM_SECONDS, empty, load, need, redis, serve
from table import Row, in_turns, rows, show

from embedded.ports import free_port

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


def measure(*, rounds: int, seconds: float) -> list[Row]:
    """Give every row, in the processor's time of each."""
    need(wrk="wrk", taskset="util-linux")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-")))
        server = redis(stack, directory / "redis")
        by = {}
        for name, path, each in (("page", PAGE, ""), ("referred", PAGE, REFERRED), ("asset", ASSET_PATH, "")):
            by[name] = directory / f"{name}.lua"
            by[name].write_text(REQUESTS.format(path=path, each=each))
        ports = {role: free_port() for role in ("upstream", "handler", "proxy", "collector")}
        upstream = ports["upstream"]
        environ = {
            "PORT": ports["collector"],
            "HOST": "127.0.0.1",
            "REDIS_URL": server.url,
            "DATABASE_URL": f"sqlite:///{directory}/onward.db",
            "JOURNAL_DIR": directory / "journal",
            "FRONTEND_URL": f"http://127.0.0.1:{upstream}",
        }
        commands = {
            "upstream": [sys.executable, "-c", UPSTREAM, str(upstream)],
            "handler": [sys.executable, "-c", BARE_HANDLER, str(ports["handler"])],
            "proxy": [sys.executable, "-c", BARE_PROXY, str(ports["proxy"]), str(upstream)],
            "collector": [str(SCRIPTS / "collector"), "serve"],
        }
        servers = {
            role: serve(
                stack,
                directory / role,
                ports[role],
                command,
                environ,
                path=ASSET_PATH,
                core=CLIENT_CORE if role == "upstream" else SERVER_CORE,
            )
            for role, command in commands.items()
        }
        asked = {
            BARE: (servers["handler"], by["referred"]),
            "a page from memory": (servers["collector"], by["page"]),
            "a page from memory, a referral each": (servers["collector"], by["referred"]),
            PROXY: (servers["proxy"], by["asset"]),
            "a style sheet, relayed": (servers["collector"], by["asset"]),
        }

        def cost(child, script, for_seconds=seconds) -> float:
            found = load(child, script, for_seconds)
            empty(server)
            return found.cpu_us

        for child, script in asked.values():
            cost(child, script, WARM_SECONDS)
        found = in_turns({name: partial(cost, *one) for name, one in asked.items()}, rounds)
        beside = {
            name: PROXY if "style sheet" in name else BARE for name in asked if name not in (BARE, PROXY)
        }
        return rows(found, "CPU µs", beside)


if __name__ == "__main__":
    show(measure(rounds=3, seconds=3))
