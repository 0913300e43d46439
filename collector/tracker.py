"""The in-app tracker: any path of a host named after a topic, and `/t/{event}`; answered with a tiny picture."""

import json
import time
from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web

from collector.app import Collector
from collector.event import Event
from collector.host import host_of
from collector.inapp import InvalidReportError, Report, report_of_get, reports_of_post
from collector.site import GIF
from process.protocol import WHY, read_body

_PREFLIGHT_SECONDS: Final = 86_400


async def track(collector: Collector, request: web.BaseRequest, path: str) -> web.Response:
    """Record what an app or a page reports."""
    headers = cross_origin_headers(request, collector.settings.cors_origins)
    if request.method == hdrs.METH_HEAD:
        return _picture(headers)
    query = request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape")
    if request.method == hdrs.METH_GET:
        reports = [report_of_get(path, query)]
    else:
        ping = [
            (
                name.encode(),
                request.headers.get(f"Ping-{name.title()}", "").encode("utf-8", "surrogateescape"),
            )
            for name in ("from", "to")
        ]
        try:
            body = await read_body(request)
            reports = reports_of_post(path, query, request.content_type, body, ping)
        except InvalidReportError as error:
            return _problem(str(error), headers)
    await _record(collector, request, reports)
    return _picture(headers)


def topic_of_host(host: str, topics: Collection[str]) -> str | None:
    """Give the topic that a host is named after: its first label."""
    label = host.partition(".")[0]
    return label if label in topics else None


def cross_origin_headers(request: web.BaseRequest, allowed: Collection[str]) -> dict[str, str]:
    """Tell a browser that a page of the request's origin may send events and read the answers."""
    if not allowed:
        return {}
    origin = request.headers.get(hdrs.ORIGIN)
    headers: dict[str, str] = {hdrs.VARY: hdrs.ORIGIN}
    if origin is not None and ("*" in allowed or origin in allowed):
        headers |= {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            # sendBeacon always sends cookies along; without this the browser reports a failure that is none.
            hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST",
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Content-Type",
            hdrs.ACCESS_CONTROL_MAX_AGE: str(_PREFLIGHT_SECONDS),
        }
    return headers


async def _record(collector: Collector, request: web.BaseRequest, reports: list[Report]) -> None:
    topics = collector.settings.inapp_topics
    topic = topic_of_host(host_of(request, collector.trusts), topics) or topics[0]
    user_agent = request.headers.get(hdrs.USER_AGENT, "").encode("utf-8", "surrogateescape")
    ip, now = collector.client_of(request), int(time.time())
    for report in reports:
        await collector.record(Event(ip, now, topic, report.path, report.params, user_agent))


def _picture(headers: dict[str, str]) -> web.Response:
    return web.Response(body=GIF, content_type="image/gif", headers={"Cache-Control": "no-store", **headers})


def _problem(detail: str, headers: dict[str, str]) -> web.Response:
    """Say what is wrong as RFC 9457 has it."""
    problem = {"type": "about:blank", "title": "These are no events", "status": 422, "detail": detail}
    return web.Response(
        status=422,
        text=json.dumps(problem),
        content_type="application/problem+json",
        headers={WHY: "invalid-events", **headers},
    )
