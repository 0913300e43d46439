"""What a click is compared with: bare aiohttp, and nginx by itself and with Lua.

The bare handler answers every request with one constant redirect: what aiohttp itself costs. nginx answers a
constant, too; nginx with Lua pushes a line of the same kind to the same Redis and waits for it, which is what one
builds by hand: neither durable nor enriched.
"""

import sys
from pathlib import Path

from rig import server

from embedded.ports import free_port
from embedded.redis import RedisServer
from embedded.server import Child

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
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  lua_package_path "/usr/share/lua/5.1/?.lua;;";
  server {{
    listen 127.0.0.1:{port} {ssl};
    {certificate}
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


def bare_handler(directory: Path) -> Child:
    """Give aiohttp with an application of one route."""
    return _bare(directory / "handler", BARE_HANDLER)


def bare_server(directory: Path) -> Child:
    """Give aiohttp without an application."""
    return _bare(directory / "server", BARE_SERVER)


def nginx(
    directory: Path, redis: RedisServer, certificate: Path | None = None, key: Path | None = None
) -> Child:
    """Give nginx, which answers a constant, and under /lua/ by Lua; with TLS if it has a certificate."""
    tls = certificate is not None
    own, port = directory / ("nginx-tls" if tls else "nginx"), free_port()
    own.mkdir()
    settings = NGINX.format(
        directory=own,
        port=port,
        redis=redis.port,
        ssl="ssl" if tls else "",
        certificate=f"ssl_certificate {certificate}; ssl_certificate_key {key};" if tls else "",
    )
    (own / "nginx.conf").write_text(settings)
    return server(own, port, ["nginx", "-c", own / "nginx.conf", "-p", own], tls=tls)


def _bare(directory: Path, source: str) -> Child:
    port = free_port()
    return server(directory, port, [sys.executable, "-c", source, port])
