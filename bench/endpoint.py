"""A click on `collector serve` beside bare aiohttp and beside nginx, one core each, in turns: `make bench`.

The bare handler answers every request with one constant redirect: what aiohttp itself costs. nginx answers a
constant, too; nginx with Lua pushes a line of the same kind to the same Redis and waits for it, which is what one
builds by hand: neither durable nor enriched. The collector has 100,000 links, meets 30,000 different user agents,
and ships every click to a real Redis.
"""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rig import SCRIPTS, WARM_SECONDS, Load, empty, load, need, redis, resident_mb, serve
from table import Row, in_turns, rows, show

from embedded.ports import free_port

LINKS = 100_000
AGENTS = 30_000

BARE_HANDLER = """
import sys
import uvloop
from aiohttp import web

async def redirect(request):
    return web.Response(status=307, headers={"Location": "https://apps.example/i", "Cache-Control": "no-store"})

app = web.Application()
app.router.add_get("/click/{id}/go", redirect)
uvloop.install()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""

BARE_SERVER = """
import asyncio, sys
import uvloop
from aiohttp import web

async def redirect(request):
    return web.Response(status=307, headers={"Location": "https://apps.example/i", "Cache-Control": "no-store"})

async def main():
    runner = web.ServerRunner(web.Server(redirect, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()

uvloop.run(main())
"""

NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  lua_package_path "/usr/share/lua/5.1/?.lua;;";
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000000;
    location / {{ add_header Cache-Control no-store; return 307 https://apps.example/i; }}
    location /lua/ {{
      content_by_lua_block {{
        local client = require("nginx.redis"):new()
        client:set_timeout(1000)
        assert(client:connect("127.0.0.1", {redis}))
        local headers = ngx.req.get_headers()
        assert(client:rpush("click_queue", table.concat({{
          headers["X-Forwarded-For"], ngx.time(), "clicks", "/t/click",
          "campaign_link_id=" .. ngx.var.uri .. "&reqparams=" .. ngx.escape_uri(ngx.var.args), headers["User-Agent"],
        }}, " ")))
        client:set_keepalive(10000, 100)
        ngx.header["Cache-Control"] = "no-store"
        return ngx.redirect("https://apps.example/i", 307)
      }}
    }}
  }}
}}
"""

# wrk asks for another link by another agent each time; with a pause before each, at random, where that is given.
REQUESTS = """
local agents = {{}}
for line in io.lines("{agents}") do agents[#agents + 1] = line end
local n = 0
request = function()
  n = n + 1
  local headers = {{["User-Agent"] = agents[n * 7919 % #agents + 1], ["X-Forwarded-For"] = "203.0.113." .. n % 250}}
  return wrk.format("GET", "{path}" .. "?click=c" .. n, headers)
end
"""
PAUSED = """
delay = function() return -math.log(1 - math.random()) * {pause_ms} end
"""
BY_ID = '/click/" .. n * 104729 % {links} + 1 .. "/go'
BY_SLUG = '/link-" .. n * 104729 % {links} + 1 .. "'
UNKNOWN = '/click/" .. n + 1000000 .. "/go'

BARE = "bare aiohttp handler"
CLICK = "a click, by id"
AWAY = "a click, Redis away"
RIVAL = "nginx + Lua, pushed to Redis"


def agents():
    """Give as many different agents as there are: phones and desktops whose versions and models differ."""
    for number in range(AGENTS):
        major, minor = 10 + number % 9, number // 9 % 10
        model = number // 90
        yield (
            f"Mozilla/5.0 (Linux; Android {major}; SM-A{model}B) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/12{minor}.0.{model}.{number % 200} Mobile Safari/537.36"
            if number % 2
            else f"Mozilla/5.0 (iPhone; CPU iPhone OS {major}_{minor} like Mac OS X) AppleWebKit/605.1.15 "
            f"(KHTML, like Gecko) Version/{major}.{minor} Mobile/15E{model} Safari/604.1"
        )


def links():
    """Give campaign links as `collector links import` reads them."""
    for number in range(1, LINKS + 1):
        yield json.dumps(
            {
                "id": number,
                "slug": f"link-{number}",
                "campaign": f"Campaign {number % 500}",
                "network": "7games",
                "user_id": number % 900,
                "attribution_window_idfa": 70,
                "attribution_window_fingerprint": 60,
                "target_url": {
                    "ios": f"https://apps.apple.com/app/id{number}",
                    "android": f"market://details?id=com.example.game{number}&referrer=utm_source%3Dg",
                    "default": f"https://www.example.com/landing/{number}",
                },
            }
        )


def scripts(directory: Path) -> dict[str, Path]:
    """Write what wrk runs."""
    listed = directory / "agents.txt"
    listed.write_text("\n".join(agents()))
    paths = {"id": BY_ID, "slug": BY_SLUG, "unknown": UNKNOWN, "lua": "/lua" + BY_ID}
    found = {}
    for name, path in paths.items():
        found[name] = directory / f"{name}.lua"
        found[name].write_text(REQUESTS.format(agents=listed, path=path.format(links=LINKS)))
    return found


def measure(*, rounds: int, seconds: float) -> list[Row]:
    """Give every row: the processor's time of each, requests a second, waiting at 80 % of what there is room for."""
    need(wrk="wrk", taskset="util-linux", nginx="nginx-light libnginx-mod-http-lua lua-nginx-redis")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-")))
        server = redis(stack, directory / "redis")
        by = scripts(directory)
        ports = {name: free_port() for name in ("handler", "server", "nginx", "collector", "alone")}
        environ = {
            "HOST": "127.0.0.1",
            "DATABASE_URL": f"sqlite:///{directory}/onward.db",
            "TRUSTED_PROXIES": "127.0.0.0/8",
            "ERROR_PAGE_URL": "https://www.example.com/unknown",
        }
        (directory / "links.jsonl").write_text("\n".join(links()))
        subprocess.run(
            [SCRIPTS / "collector", "links", "import", directory / "links.jsonl"], env=environ, check=True
        )
        nginx = directory / "nginx"
        nginx.mkdir()
        (nginx / "nginx.conf").write_text(
            NGINX.format(directory=nginx, port=ports["nginx"], redis=server.port)
        )
        start = partial(serve, stack)
        python, collector = sys.executable, str(SCRIPTS / "collector")
        handler = start(
            directory / "handler", ports["handler"], [python, "-c", BARE_HANDLER, str(ports["handler"])]
        )
        bare = start(directory / "server", ports["server"], [python, "-c", BARE_SERVER, str(ports["server"])])
        rival = start(nginx, ports["nginx"], ["nginx", "-c", str(nginx / "nginx.conf"), "-p", str(nginx)])
        whole = start(
            directory / "collector",
            ports["collector"],
            [collector, "serve"],
            environ
            | {"PORT": ports["collector"], "REDIS_URL": server.url, "JOURNAL_DIR": directory / "journal"},
            path="/healthz",
        )
        alone = start(
            directory / "alone",
            ports["alone"],
            [collector, "serve"],
            environ
            | {
                "PORT": ports["alone"],
                "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
                "JOURNAL_DIR": directory / "alone",
            },
            path="/healthz",
        )
        asked = {
            BARE: (handler, by["id"]),
            "bare aiohttp web.Server": (bare, by["id"]),
            "nginx, a constant": (rival, by["id"]),
            RIVAL: (rival, by["lua"]),
            CLICK: (whole, by["id"]),
            "a click, by slug": (whole, by["slug"]),
            "an unknown link": (whole, by["unknown"]),
            AWAY: (alone, by["id"]),
        }

        def ask(child, script, for_seconds=seconds) -> Load:
            found = load(child, script, for_seconds)
            empty(server)
            return found

        for child, script in asked.values():
            ask(child, script, WARM_SECONDS)
        found = in_turns({name: partial(ask, *one) for name, one in asked.items()}, rounds)
        beside = {name: BARE for name in asked if name != BARE}
        costs = {name: [one.cpu_us for one in each] for name, each in found.items()}
        rates = {f"{name}, a second": [one.rate for one in each] for name, each in found.items()}
        rivals = {f"{name}, a second": f"{RIVAL}, a second" for name in asked if name != RIVAL}
        memory = {
            "memory of a collector, loaded": [resident_mb(whole.pid)] * rounds,
            "memory of the bare handler": [resident_mb(handler.pid)] * rounds,
        }
        return [
            *rows(costs, "CPU µs", beside),
            *rows(rates, "requests/s", rivals),
            *waits(
                whole=whole,
                alone=alone,
                script=by["id"],
                most=room(found[CLICK]),
                directory=directory,
                rounds=rounds,
                seconds=seconds,
            ),
            *rows(memory, "MB", {}),
        ]


def room(found: tuple[Load, ...]) -> float:
    """Give what there is room for."""
    return sorted(one.rate for one in found)[len(found) // 2]


def waits(*, whole, alone, script, most, directory, rounds, seconds) -> list[Row]:
    """Give how long clicks wait at half and at four fifths of what there is room for."""
    steps = {}
    for share in (0.5, 0.8):
        connections = 64
        paused = directory / f"paused-{share}.lua"
        paused.write_text(
            script.read_text() + PAUSED.format(pause_ms=1000 * connections / (share * most) - 1)
        )
        for name, child in (("", whole), (", Redis away", alone)):
            steps[f"p99 at {share:.0%} of the room{name}"] = partial(
                load, child, paused, seconds, connections=connections
            )
    found = in_turns(steps, rounds)
    return rows(
        {name: [one.p99_ms for one in each] for name, each in found.items()},
        "ms",
        {name: name.removesuffix(", Redis away") for name in steps if name.endswith("away")},
    )


if __name__ == "__main__":
    show(measure(rounds=3, seconds=3))
