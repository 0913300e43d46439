"""METRICS_PORT: what operators and their tools ask of a process. Plain HTTP, for the inside of a network."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from process.metrics import CONTENT_TYPE
from process.protocol import SERVER, WHY
from process.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Watched:
    """What a process tells about itself."""

    metrics: Callable[[], bytes]
    readiness: Callable[[], Awaitable[Readiness]]


async def answer(watched: Watched, request: web.BaseRequest) -> web.Response:
    """Answer one request on METRICS_PORT."""
    response = await _answer(watched, request)
    response.headers[hdrs.SERVER] = SERVER
    return response


async def _answer(watched: Watched, request: web.BaseRequest) -> web.Response:
    path = request.raw_path.partition("?")[0]
    if path not in ("/metrics", "/healthz", "/readyz"):
        return web.Response(status=404, headers={WHY: "no-such-path"})
    if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
        return web.Response(status=405, headers={hdrs.ALLOW: "GET, HEAD", WHY: "method-not-allowed"})
    if path == "/metrics":
        return metrics_response(watched.metrics())
    return (await watched.readiness()).response() if path == "/readyz" else web.Response(text="OK")


def metrics_response(exposition: bytes) -> web.Response:
    """Give the answer of `/metrics`."""
    return web.Response(body=exposition, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})
