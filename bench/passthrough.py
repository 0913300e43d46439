"""The web site behind `collector serve` beside bare aiohttp, one core each, in turns.

Two pairs. A page from memory, whose every view is a referral shipped to a real Redis, beside a bare handler that
returns the same bytes; and a style sheet that is relayed beside the plainest reverse proxy that aiohttp allows,
both in front of the same upstream. Server on one core; wrk, upstream and Redis on another.

What counts is the processor's time that a server takes for a request: on a machine that is shared, requests a second
say more of the neighbours. Compare rows of one run with each other.

    .venv/bin/python bench/passthrough.py
"""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from embedded.ports import free_port
from embedded.redis import running_redis
from embedded.server import Child, Program

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS", "4"))
CONNECTIONS = 32
SERVER_CORE, CLIENT_CORE = "0", "1"
SCRIPTS = Path(sys.executable).parent
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


def answers(port, path):
    def ask():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    return ask


def child(directory, port, core, argv, environ):
    return Child(
        Program(
            name=directory.name,
            directory=directory,
            argv=("taskset", "--cpu-list", core, *argv),
            ports=(port,),
            answers=answers(port, "/a/style.css"),
            environment={variable: str(value) for variable, value in environ.items()},
            start_seconds=60,
        )
    )


def cpu_seconds(pid):
    """Give what a process has had of the processor (proc(5): fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(server, script, seconds):
    """Ask a server for a while; give requests a second, and microseconds of the processor for each."""
    command = [shutil.which("taskset"), "--cpu-list", CLIENT_CORE, shutil.which("wrk"), "--threads=1"]
    command += [f"--connections={CONNECTIONS}", f"--duration={seconds}s", f"--script={script}"]
    before = cpu_seconds(server.pid)
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{server.program.ports[0]}"], capture_output=True, text=True, check=True
    ).stdout
    assert "Non-2xx or 3xx" not in said, said  # noqa: S101
    cpu = cpu_seconds(server.pid) - before
    return float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1]), cpu * 1e6 / int(
        re.search(r"(\d+) requests in", said)[1]
    )


def measure(rows):
    """Measure each row in turn; give the microseconds found for each."""
    figures = {row: [] for row, _, _ in rows}
    for _, server, script in rows:
        measured(server, script, 2)  # warm
    for _ in range(ROUNDS):
        for row, server, script in rows:
            figures[row].append(measured(server, script, SECONDS))
    print(f"{'':<40}{'µs of the processor each':>34}{'requests/s':>22}")
    for row, found in figures.items():
        rates, costs = ([one[index] for one in found] for index in (0, 1))
        cost = f"{statistics.median(costs):.1f} ({min(costs):.1f} – {max(costs):.1f})"
        rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} – {max(rates):,.0f})"
        print(f"{row:<40}{cost:>34}{rate:>30}")
    return [[cost for _, cost in found] for found in figures.values()]


def ratio(over, under):
    found = sorted(one / other for one, other in zip(over, under, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} – {found[-1]:.2f})"


def main():
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(
                f"`{tool}` is missing: install it (Debian: apt-get install wrk util-linux) and run this again."
            )
    redis_binary = shutil.which("redis-server")
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as name:
        directory = Path(name)
        scripts = {
            "page": REQUESTS.format(path="/", each=""),
            "referred": REQUESTS.format(path="/", each=REFERRED),
            "asset": REQUESTS.format(path="/a/style.css", each=""),
        }
        for script, text in scripts.items():
            (directory / script).write_text(text)
        with running_redis(directory / "redis", binary=redis_binary and Path(redis_binary)) as redis:
            pin = [shutil.which("taskset"), "-cp", CLIENT_CORE, str(redis.pid)]
            subprocess.run(pin, check=True, capture_output=True)
            ports = {role: free_port() for role in ("upstream", "handler", "proxy", "collector")}
            upstream = ports["upstream"]
            environ = {
                "PORT": ports["collector"],
                "HOST": "127.0.0.1",
                "REDIS_URL": redis.url,
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
            with contextlib.ExitStack() as stack:
                servers = {}
                for role, command in commands.items():
                    core = CLIENT_CORE if role == "upstream" else SERVER_CORE
                    server = servers[role] = child(directory / role, ports[role], core, command, environ)
                    server.start()
                    stack.callback(server.stop)
                page, referred, bare, asset, plain = measure(
                    [
                        ("page from memory", servers["collector"], directory / "page"),
                        ("page from memory, a referral each", servers["collector"], directory / "referred"),
                        ("  bare aiohttp handler, same bytes", servers["handler"], directory / "referred"),
                        ("style sheet, relayed", servers["collector"], directory / "asset"),
                        ("  bare aiohttp reverse proxy", servers["proxy"], directory / "asset"),
                    ]
                )
    print(f"a page from memory costs {ratio(page, bare)} × a bare handler")
    print(f"a page from memory with its referral costs {ratio(referred, bare)} × a bare handler")
    print(
        f"a style sheet, relayed, leaves room for {ratio(plain, asset)} of the requests of a bare reverse proxy"
    )


if __name__ == "__main__":
    main()
