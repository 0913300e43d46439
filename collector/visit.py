"""A request as a visit: who came when, by which path, as far as it may be kept."""

import time

from aiohttp import hdrs

from collector.app import Collector, new_event_id
from collector.click import Visit
from collector.event import decode_query
from collector.referer import kept_referer
from collector.signals import signals_of
from process.at_once import AnyRequest


def visit_of(collector: Collector, request: AnyRequest, *, keep_referer: bool = True) -> Visit:
    """Give the visit, as of now."""
    headers = request.headers
    referer = headers.get(hdrs.REFERER) if keep_referer else None
    return Visit(
        event_id=new_event_id(),
        at_ms=time.time_ns() // 1_000_000,
        ip=collector.client_of(request),
        user_agent=headers.get(hdrs.USER_AGENT, "").encode("utf-8", "surrogateescape"),
        params=decode_query(request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape")),
        referer=kept_referer(referer, collector.settings.referer),
        signals=signals_of(request.method, headers),
    )


def raw_path(request: AnyRequest) -> str:
    """Give the path as it was sent, without the query; of an absolute URL only its path."""
    path = request.raw_path.partition("?")[0]
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path
