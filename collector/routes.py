"""The table of routes, and how a request finds its own.

The table is ours because the contract is about the path as it was sent: case-sensitive, in order, nothing
decoded, folded or stripped.
"""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from collector import follow, health, link_sync, site, tracker
from collector.app import Collector
from collector.host import host_of
from collector.passthrough import page_at_once, pass_through
from collector.plain_http import CHALLENGES
from collector.tracker import topic_of_host
from collector.visit import raw_path
from process.at_once import AnyRequest, ParsedRequest
from process.protocol import WHY, RefusedError

_READING: Final = (hdrs.METH_GET, hdrs.METH_HEAD)
_POSTING: Final = (hdrs.METH_POST,)
_TRACKING: Final = (*_READING, *_POSTING)


@dataclass(frozen=True, slots=True)
class Route:
    """Which coroutine answers which paths, and to which methods."""

    name: str
    """In metrics."""
    path: str | re.Pattern[str]
    """A pattern's groups are the arguments."""
    answer: Callable[..., Awaitable[web.StreamResponse]]
    methods: tuple[str, ...] = _READING
    at_once: Callable[..., bytes | None] | None = None
    """Gives the answer to a GET where that can be had without waiting, else None, having done nothing."""

    @property
    def allow(self) -> str:
        """Give the value of the Allow header."""
        return ", ".join((*self.methods, hdrs.METH_OPTIONS))


class Routes:
    """A table of routes."""

    def __init__(self, *routes: Route) -> None:
        self._by_path = {route.path: route for route in routes if isinstance(route.path, str)}
        self._patterns = [
            (route.path.fullmatch, route) for route in routes if not isinstance(route.path, str)
        ]

    def find(self, path: str) -> tuple[Route | None, tuple[str, ...]]:
        """Give a path's route and its arguments: one with that very path, else the first whose pattern it is."""
        exact = self._by_path.get(path)
        if exact is not None:
            return exact, ()
        for matches, route in self._patterns:
            match = matches(path)
            if match is not None:
                return route, match.groups()
        return None, ()


_OPERATING: Final = (
    Route("acme", re.compile(re.escape(CHALLENGES) + r"(.*)"), site.acme_challenge),
    Route("check", "/check", health.check),
    Route("healthz", "/healthz", health.healthz),
    Route("readyz", "/readyz", health.readyz),
    Route("metrics", "/metrics", health.metrics),
)
"""What operators and authorities ask, of whatever host."""

ON_A_TOPICS_HOST: Final = Routes(
    *_OPERATING,
    Route("robots", "/robots.txt", site.robots),
    Route("favicon", re.compile(r"/favicon\.ico|/apple-[^/]*\.png"), site.favicon),
    Route("inapp", re.compile(r"(.*)"), tracker.track, _TRACKING),
)
"""On a host whose first label is in INAPP_TOPICS."""

ON_EVERY_OTHER_HOST: Final = Routes(
    # First, since nearly all ask for them, and no other pattern has their paths.
    Route("click", re.compile(r"/click/([^/]*)/go"), follow.click, at_once=follow.click_at_once),
    Route("slug", re.compile(r"/([A-Za-z0-9_-]{1,64})"), follow.slug, at_once=follow.slug_at_once),
    *_OPERATING,
    Route("sync", re.compile(r"/api/[^/]+/create"), link_sync.create, _POSTING),
    Route("sync", re.compile(r"/api/[^/]+/delete"), link_sync.delete, _POSTING),
    Route("inapp", re.compile(r"(/t/.+)"), tracker.track, _TRACKING),
    Route("robots", "/robots.txt", site.robots),
    Route("favicon", re.compile(r"/favicon\.ico|/apple-[^/]*\.png"), site.favicon),
    Route("app_links", "/.well-known/apple-app-site-association", site.apple_app_links),
    Route("app_links", "/.well-known/assetlinks.json", site.android_app_links),
    Route("proxy", re.compile(r"/([A-Za-z0-9_-]{1,64})(/.*)"), follow.below_slug),
)
_NO_ROUTE: Final = "none"
_FRONTEND: Final = "frontend"
_STATUS: Final = slice(len("HTTP/1.1 "), len("HTTP/1.1 307"))
"""Where an answer has it."""


def at_once(collector: Collector, request: ParsedRequest) -> bytes | None:
    """Answer a request without waiting for anything, as nearly all clicks can be; None leaves it to `answer`."""
    if request.method != hdrs.METH_GET or collector.settings.durability != "journal":
        return None
    topic = _topic(collector, request)
    route, arguments = _route(raw_path(request), topic)
    if collector.frontend and topic is None and _is_the_frontends(collector, request, route, arguments):
        name = _FRONTEND
        answer = page_at_once(collector, collector.frontend, request)
    elif route is not None and route.at_once is not None:
        name = route.name
        answer = route.at_once(collector, request, *arguments)
    else:
        return None
    if answer is not None:
        collector.note_answer(name, answer[_STATUS])
    return answer


async def answer(collector: Collector, request: web.BaseRequest) -> web.StreamResponse:
    """Answer one request by the first route that matches its raw path."""
    began = time.perf_counter()
    topic = _topic(collector, request)
    route, arguments = _route(raw_path(request), topic)
    name = route.name if route else _NO_ROUTE
    try:
        if collector.frontend and topic is None and _is_the_frontends(collector, request, route, arguments):
            name = _FRONTEND
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
    return (ON_A_TOPICS_HOST if topic else ON_EVERY_OTHER_HOST).find(path)


def _is_the_frontends(
    collector: Collector, request: AnyRequest, route: Route | None, arguments: tuple[str, ...]
) -> bool:
    """Tell whether the web site behind us answers: for every path that is no operator's and no link's."""
    if request.method == hdrs.METH_CONNECT:
        return False
    if route is None or route.answer in (site.robots, site.favicon):
        return True
    if route.answer is site.apple_app_links:
        return "app_links_apple" not in collector.settings.model_fields_set
    if route.answer is site.android_app_links:
        return "app_links_android" not in collector.settings.model_fields_set
    if route.answer not in (follow.slug, follow.below_slug):
        return False
    name, *rest = arguments
    link = follow.by_slug(collector, name)
    return link is None or (bool(rest) and link.mode != "proxy")


async def _answer(
    collector: Collector, request: web.BaseRequest, route: Route | None, arguments: tuple[str, ...]
) -> web.StreamResponse:
    if route is None:
        response = site.no_such_path()
    elif request.method == hdrs.METH_OPTIONS:
        response = web.Response(status=204, headers={hdrs.ALLOW: route.allow})
        if route.answer is tracker.track:
            response.headers.update(tracker.cross_origin_headers(request, collector.settings.cors_origins))
    elif request.method not in route.methods:
        response = web.Response(status=405, headers={hdrs.ALLOW: route.allow, WHY: "method-not-allowed"})
    elif request.body_exists and request.method != hdrs.METH_POST:
        response = web.Response(status=413, headers={WHY: "no-body-wanted"})
    else:
        return await route.answer(collector, request, *arguments)
    if request.body_exists or request.method == hdrs.METH_CONNECT:
        response.force_close()  # nobody reads what may follow
    return response
