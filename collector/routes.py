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

from collector import health, link_sync, site, tracker
from collector.app import Collector
from collector.click import Click, Orphan, OrphanReason, Visit
from collector.host import host_of
from collector.mount import Mount
from collector.passthrough import pass_through
from collector.plain_http import CHALLENGES, challenge_response
from collector.platform import platform_hint, platform_of
from collector.proxy import proxied
from collector.redirect import OF_LINKS, redirect
from collector.target import target_of
from collector.tracker import topic_of_host
from collector.visit import raw_path, visit_of
from links.link import RESERVED_SLUGS, Link, state_of
from process.at_once import AnyRequest, ParsedRequest
from process.protocol import WHY, RefusedError

_LINK_ID: Final = re.compile(r"[0-9]{1,18}")

_BY_ID: Final = 307
_BY_SLUG: Final = 302


async def click(collector: Collector, request: web.BaseRequest, link_id: str) -> web.StreamResponse:
    """Send the visitor of `/click/{id}/go` to the link's target."""
    return await _follow(collector, request, _by_id(collector, link_id), found=_BY_ID)


async def slug(collector: Collector, request: web.BaseRequest, name: str) -> web.StreamResponse:
    """Send the visitor of `/{slug}` to the link's target."""
    if _is_reserved(name):
        return _no_such_path()
    return await _follow(collector, request, collector.links.by_slug(name), found=_BY_SLUG)


def at_once(collector: Collector, request: ParsedRequest) -> bytes | None:
    """Answer a click without waiting for anything, as nearly all can be: `_follow`'s walk in one go.

    What is no GET of a live link that redirects is left to `answer`: None, and nothing was done.
    """
    began = time.perf_counter()
    if request.method != hdrs.METH_GET or collector.settings.durability != "journal":
        return None
    route, arguments = _route(raw_path(request), _topic(collector, request))
    if route is None or route.handler not in (click, slug):
        return None
    link, found = _by_id(collector, *arguments), _BY_ID
    if route.handler is slug:
        link, found = _by_slug(collector, *arguments), _BY_SLUG
    if link is None or link.mode != "redirect":
        return None
    visit = visit_of(collector, request)
    if state_of(link, visit.at_ms) != "live":
        return None
    platform = platform_of(visit.user_agent)
    target = _target(request, link, visit, platform)
    answer = redirect(found, target, collector.own_lines) if target else None
    if answer is None:
        return None
    collector.write_down(Click(link, visit, platform, target).event())
    collector.count(route.name, found, began)
    return answer


async def below_slug(
    collector: Collector, request: web.BaseRequest, name: str, rest: str
) -> web.StreamResponse:
    """Fetch `/{slug}/rest` of a link in proxy mode; only the visit of `/{slug}` was a click."""
    link = _by_slug(collector, name)
    if link is None or link.mode != "proxy":
        return _no_such_path()
    visit = visit_of(collector, request)
    if state_of(link, visit.at_ms) != "live":
        return _no_such_path()
    target = _target(request, link, visit, platform_of(visit.user_agent))
    if target is None or not _can_be_fetched(target):
        return _no_such_path()
    return await _proxied(collector, request, Mount(f"/{name}", target), rest)


async def _follow(
    collector: Collector, request: web.BaseRequest, link: Link | None, *, found: int
) -> web.StreamResponse:
    """Answer for a link: the event is in the journal before the visitor is on the way."""
    visit = visit_of(collector, request)
    if link is None:
        return await _orphan(collector, request, visit, "unknown")
    state = state_of(link, visit.at_ms)
    if state != "live":
        return await _orphan(collector, request, visit, state)
    platform = platform_of(visit.user_agent)
    target = _target(request, link, visit, platform) or collector.settings.not_found_url
    await collector.record(Click(link, visit, platform, target).event())
    if link.mode == "proxy" and target is not None and _can_be_fetched(target):
        mount = Mount(raw_path(request), target, takes_rest=found == _BY_SLUG)
        return await _proxied(collector, request, mount, "")
    return _redirect(target, found, otherwise="no-target")


def _by_id(collector: Collector, link_id: str) -> Link | None:
    return collector.links.by_id(int(link_id)) if _LINK_ID.fullmatch(link_id) else None


def _by_slug(collector: Collector, name: str) -> Link | None:
    return None if _is_reserved(name) else collector.links.by_slug(name)


def _target(request: AnyRequest, link: Link, visit: Visit, platform: str) -> str | None:
    hint = "" if platform else platform_hint(request.headers.get("Sec-CH-UA-Platform", ""))
    return target_of(link, visit, platform, hint)


def _can_be_fetched(target: str) -> bool:
    """Tell a page from an app's own scheme, to which also a link in proxy mode can only redirect."""
    return target[:8].lower().startswith(("http://", "https://"))


async def _proxied(
    collector: Collector, request: web.BaseRequest, mount: Mount, rest: str
) -> web.StreamResponse:
    return await proxied(
        request,
        collector.http,
        mount,
        rest,
        own_headers=collector.own_headers,
        sent_headers={},  # whose address it is, is nothing that a foreign target is told
        withheld={collector.settings.client_ip_header.lower()},
    )


def _is_reserved(name: str) -> bool:
    return name in RESERVED_SLUGS or name.startswith("apple-")


async def acme_challenge(collector: Collector, request: web.BaseRequest, token: str) -> web.Response:
    """Answer a certificate authority that asks whether this host is ours."""
    return challenge_response(collector.settings.acme_dir, request.method, token)


Handler = Callable[..., Awaitable[web.StreamResponse]]
_READING: Final = (hdrs.METH_GET, hdrs.METH_HEAD)
_POSTING: Final = (hdrs.METH_POST,)


@dataclass(frozen=True, slots=True)
class Route:
    """Which coroutine answers which paths, and to which methods; the pattern's groups are its arguments."""

    name: str
    """In metrics."""
    path: re.Pattern[str]
    handler: Handler
    methods: tuple[str, ...] = _READING

    @property
    def allow(self) -> str:
        """Give the value of the Allow header."""
        return ", ".join((*self.methods, hdrs.METH_OPTIONS))


_TRACKING: Final = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST)

OPERATING: Final = (
    Route("acme", re.compile(re.escape(CHALLENGES) + r"(.*)"), acme_challenge),
    Route("check", re.compile(r"/check"), health.check),
    Route("healthz", re.compile(r"/healthz"), health.healthz),
    Route("readyz", re.compile(r"/readyz"), health.readyz),
    Route("metrics", re.compile(r"/metrics"), health.metrics),
)
"""What operators and authorities ask, of whatever host."""

ON_A_TOPICS_HOST: Final = (
    Route("robots", re.compile(r"/robots\.txt"), site.robots),
    Route("favicon", re.compile(r"/favicon\.ico|/apple-[^/]*\.png"), site.favicon),
    Route("inapp", re.compile(r"(.*)"), tracker.track, _TRACKING),
)
"""On a host whose first label is in INAPP_TOPICS."""

ON_EVERY_OTHER_HOST: Final = (
    Route("click", re.compile(r"/click/([^/]*)/go"), click),
    Route("sync", re.compile(r"/api/[^/]+/create"), link_sync.create, _POSTING),
    Route("sync", re.compile(r"/api/[^/]+/delete"), link_sync.delete, _POSTING),
    Route("inapp", re.compile(r"(/t/.+)"), tracker.track, _TRACKING),
    Route("robots", re.compile(r"/robots\.txt"), site.robots),
    Route("favicon", re.compile(r"/favicon\.ico|/apple-[^/]*\.png"), site.favicon),
    Route("app_links", re.compile(r"/\.well-known/apple-app-site-association"), site.apple_app_links),
    Route("app_links", re.compile(r"/\.well-known/assetlinks\.json"), site.android_app_links),
    Route("slug", re.compile(r"/([A-Za-z0-9_-]{1,64})"), slug),
    Route("proxy", re.compile(r"/([A-Za-z0-9_-]{1,64})(/.*)"), below_slug),
)
_NO_ROUTE: Final = "none"


async def answer(collector: Collector, request: web.BaseRequest) -> web.StreamResponse:
    """Answer one request by the first route that matches its raw path."""
    began = time.perf_counter()
    topic = _topic(collector, request)
    route, arguments = _route(raw_path(request), topic)
    name = route.name if route else _NO_ROUTE
    try:
        if collector.frontend and topic is None and _is_the_frontends(collector, request, route, arguments):
            name = "frontend"
            response = await pass_through(collector, collector.frontend, request)
        else:
            response = await _answer(collector, request, route, arguments)
    except RefusedError as error:
        response = web.Response(status=error.status, headers={WHY: error.why})
        response.force_close()  # nobody reads the rest of it
    if not response.prepared:
        response.headers.update(collector.own_headers)
    collector.count(name, response.status, began)
    return response


def _topic(collector: Collector, request: AnyRequest) -> str | None:
    return topic_of_host(host_of(request, collector.trusts), collector.settings.inapp_topics)


def _route(path: str, topic: str | None) -> tuple[Route | None, tuple[str, ...]]:
    for route in (*OPERATING, *(ON_A_TOPICS_HOST if topic else ON_EVERY_OTHER_HOST)):
        match = route.path.fullmatch(path)
        if match is not None:
            return route, match.groups()
    return None, ()


def _is_the_frontends(
    collector: Collector, request: web.BaseRequest, route: Route | None, arguments: tuple[str, ...]
) -> bool:
    """Tell whether the web site behind us answers: for every path that is no operator's and no link's."""
    if request.method == hdrs.METH_CONNECT:
        return False
    if route is None or route.handler in (site.robots, site.favicon):
        return True
    if route.handler is site.apple_app_links:
        return "app_links_apple" not in collector.settings.model_fields_set
    if route.handler is site.android_app_links:
        return "app_links_android" not in collector.settings.model_fields_set
    if route.handler not in (slug, below_slug):
        return False
    name, *rest = arguments
    link = _by_slug(collector, name)
    return link is None or (bool(rest) and link.mode != "proxy")


async def _answer(
    collector: Collector, request: web.BaseRequest, route: Route | None, arguments: tuple[str, ...]
) -> web.StreamResponse:
    if route is None:
        response = _no_such_path()
    elif request.method == hdrs.METH_OPTIONS:
        response = web.Response(status=204, headers={hdrs.ALLOW: route.allow})
        if route.handler is tracker.track:
            response.headers.update(tracker.cross_origin_headers(request, collector.settings.cors_origins))
    elif request.method not in route.methods:
        response = web.Response(status=405, headers={hdrs.ALLOW: route.allow, WHY: "method-not-allowed"})
    elif request.body_exists and request.method != hdrs.METH_POST:
        response = web.Response(status=413, headers={WHY: "no-body-wanted"})
    else:
        return await route.handler(collector, request, *arguments)
    if request.body_exists or request.method == hdrs.METH_CONNECT:
        response.force_close()  # nobody reads what may follow
    return response


async def _orphan(
    collector: Collector, request: web.BaseRequest, visit: Visit, reason: OrphanReason
) -> web.Response:
    target = collector.settings.error_page_url
    if request.method != hdrs.METH_HEAD:
        await collector.record(Orphan(visit, raw_path(request), reason, target).event())
    return _redirect(target, 307, otherwise=f"{reason.replace('_', '-')}-link")


def _no_such_path() -> web.Response:
    return web.Response(status=404, headers={WHY: "no-such-path"})


def _redirect(target: str | None, found: int, *, otherwise: str) -> web.Response:
    """Redirect to the target, byte for byte as recorded, or an empty 404 that says why."""
    if target is None:
        return web.Response(status=404, headers={**OF_LINKS, WHY: otherwise})
    return web.Response(status=found, headers={**OF_LINKS, hdrs.LOCATION: target})
