"""One coroutine per URL, then the table of them.

The table is ours because the contract is about the path as it was sent: case-sensitive, in order, nothing
decoded, folded or stripped.
"""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from collector.app import Collector, new_event_id
from collector.click import Click, Orphan, OrphanReason, Visit
from collector.event import decode_query
from collector.plain_http import CHALLENGES, challenge_response
from collector.platform import platform_hint, platform_of
from collector.protocol import SERVER, WHY
from collector.referer import kept_referer
from collector.signals import signals_of
from collector.target import target_of
from links.link import RESERVED_SLUGS, Link, state_of

_GIF: Final = bytes.fromhex(
    "47494638396101000100800100000000ffffff21f90401000001002c00000000010001000002024c01003b"
)
_LINK_ID: Final = re.compile(r"[0-9]{1,18}")


async def click(collector: Collector, request: web.BaseRequest, link_id: str) -> web.Response:
    """Send the visitor of `/click/{id}/go` to the link's target."""
    link = collector.links.by_id(int(link_id)) if _LINK_ID.fullmatch(link_id) else None
    return _follow(collector, request, link, found=307)


async def slug(collector: Collector, request: web.BaseRequest, name: str) -> web.Response:
    """Send the visitor of `/{slug}` to the link's target."""
    if name in RESERVED_SLUGS or name.startswith("apple-"):
        return _no_such_path()
    return _follow(collector, request, collector.links.by_slug(name), found=302)


def _follow(collector: Collector, request: web.BaseRequest, link: Link | None, *, found: int) -> web.Response:
    """Answer for a link: the event is in the journal before the visitor is on the way."""
    visit = _visit(collector, request)
    if link is None:
        return _orphan(collector, request, visit, "unknown")
    state = state_of(link, visit.at_ms)
    if state != "live":
        return _orphan(collector, request, visit, state)
    platform = platform_of(visit.user_agent)
    hint = platform_hint(request.headers.get("Sec-CH-UA-Platform", ""))
    target = target_of(link, visit, platform, hint) or collector.settings.not_found_url
    collector.record(Click(link, visit, platform, target).event())
    return _redirect(target, found, otherwise="no-target")


async def acme_challenge(collector: Collector, request: web.BaseRequest, token: str) -> web.Response:
    """Answer a certificate authority that asks whether this host is ours."""
    return challenge_response(collector.settings.acme_dir, request.method, token)


async def check(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell whether every Redis answers."""
    if await collector.redis_alive():
        return web.Response(text="OK")
    return web.Response(status=503, text="Database unreachable")


async def healthz(_collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell that the loop turns."""
    return web.Response(text="OK")


async def robots(_collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Ask crawlers to leave links alone."""
    return web.Response(text="User-agent: *\nDisallow: /\n")


async def favicon(_collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Give the smallest picture there is."""
    return web.Response(body=_GIF, content_type="image/gif")


async def apple_app_links(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell iOS which paths open in an app."""
    return web.Response(text=collector.settings.app_links_apple, content_type="application/json")


async def android_app_links(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell Android which app may open our links."""
    return web.Response(text=collector.settings.app_links_android, content_type="application/json")


Handler = Callable[..., Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """Which coroutine answers which paths; the pattern's groups are its arguments."""

    path: re.Pattern[str]
    handler: Handler


ROUTES: Final = (
    Route(re.compile(re.escape(CHALLENGES) + r"(.*)"), acme_challenge),
    Route(re.compile(r"/check"), check),
    Route(re.compile(r"/healthz"), healthz),
    Route(re.compile(r"/click/([^/]*)/go"), click),
    Route(re.compile(r"/robots\.txt"), robots),
    Route(re.compile(r"/favicon\.ico|/apple-[^/]*\.png"), favicon),
    Route(re.compile(r"/\.well-known/apple-app-site-association"), apple_app_links),
    Route(re.compile(r"/\.well-known/assetlinks\.json"), android_app_links),
    Route(re.compile(r"/([A-Za-z0-9_-]{1,64})"), slug),
)
_METHODS: Final = "GET, HEAD, OPTIONS"


async def answer(collector: Collector, request: web.BaseRequest) -> web.Response:
    """Answer one request by the first route that matches its raw path."""
    response = await _answer(collector, request)
    if request.body_exists or request.method == hdrs.METH_CONNECT:
        response.force_close()  # nobody reads what may follow
    response.headers[hdrs.SERVER] = SERVER
    return response


async def _answer(collector: Collector, request: web.BaseRequest) -> web.Response:
    path = raw_path(request)
    for route in ROUTES:
        match = route.path.fullmatch(path)
        if match is None:
            continue
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers={hdrs.ALLOW: _METHODS})
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return web.Response(status=405, headers={hdrs.ALLOW: _METHODS, WHY: "method-not-allowed"})
        if request.body_exists:
            return web.Response(status=413, headers={WHY: "no-body-wanted"})
        return await route.handler(collector, request, *match.groups())
    return _no_such_path()


def raw_path(request: web.BaseRequest) -> str:
    """Give the path as it was sent, without the query; of an absolute URL only its path."""
    path = request.raw_path.partition("?")[0]
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path


def _visit(collector: Collector, request: web.BaseRequest) -> Visit:
    settings = collector.settings
    headers = request.headers
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return Visit(
        event_id=new_event_id(),
        at_ms=time.time_ns() // 1_000_000,
        ip=collector.address_of(peer[0] if peer else None, headers.getall(settings.client_ip_header, ())),
        user_agent=headers.get(hdrs.USER_AGENT, "").encode("utf-8", "surrogateescape"),
        params=decode_query(request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape")),
        referer=kept_referer(headers.get(hdrs.REFERER), settings.referer),
        signals=signals_of(request.method, headers),
    )


def _orphan(
    collector: Collector, request: web.BaseRequest, visit: Visit, reason: OrphanReason
) -> web.Response:
    target = collector.settings.error_page_url
    if request.method != hdrs.METH_HEAD:
        collector.record(Orphan(visit, raw_path(request), reason, target).event())
    return _redirect(target, 307, otherwise=f"{reason.replace('_', '-')}-link")


def _no_such_path() -> web.Response:
    return web.Response(status=404, headers={WHY: "no-such-path"})


def _redirect(target: str | None, found: int, *, otherwise: str) -> web.Response:
    """Redirect to the target, byte for byte as recorded, or an empty 404 that says why."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "strict-origin-when-cross-origin"}
    if target is None:
        return web.Response(status=404, headers={**headers, WHY: otherwise})
    return web.Response(status=found, headers={**headers, hdrs.LOCATION: target})
