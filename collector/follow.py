"""A campaign link is followed: which link, whether it lives, where it leads, and the event before the answer."""

from typing import Final

from aiohttp import hdrs, web

from collector.app import Collector
from collector.click import Click, Orphan, OrphanReason, Visit
from collector.mount import Mount
from collector.platform import platform_hint, platform_of
from collector.proxy import proxied
from collector.redirect import OF_LINKS, redirect
from collector.site import no_such_path
from collector.target import target_of
from collector.visit import raw_path, visit_of
from links.link import RESERVED_SLUGS, Link, state_of
from process.at_once import AnyRequest, ParsedRequest
from process.protocol import WHY

BY_ID: Final = 307
BY_SLUG: Final = 302
_TO_ERROR_PAGE: Final = 307

_LONGEST_ID: Final = 18
"""Digits."""


async def click(collector: Collector, request: web.BaseRequest, link_id: str) -> web.StreamResponse:
    """Send the visitor of `/click/{id}/go` to the link's target."""
    return await _follow(collector, request, by_id(collector, link_id), BY_ID)


async def slug(collector: Collector, request: web.BaseRequest, name: str) -> web.StreamResponse:
    """Send the visitor of `/{slug}` to the link's target."""
    if _is_reserved(name):
        return no_such_path()
    return await _follow(collector, request, by_slug(collector, name), BY_SLUG)


async def below_slug(
    collector: Collector, request: web.BaseRequest, name: str, rest: str
) -> web.StreamResponse:
    """Fetch `/{slug}/rest` of a link in proxy mode; only the visit of `/{slug}` was a click."""
    link = by_slug(collector, name)
    if link is None or link.mode != "proxy":
        return no_such_path()
    visit = visit_of(collector, request)
    if state_of(link, visit.at_ms) != "live":
        return no_such_path()
    target = _target(request, link, visit, platform_of(visit.user_agent))
    if target is None or not _can_be_fetched(target):
        return no_such_path()
    return await _proxied(collector, request, Mount(f"/{name}", target), rest)


def click_at_once(collector: Collector, request: ParsedRequest, link_id: str) -> bytes | None:
    """Answer as `click` does, without waiting for anything."""
    return _follow_at_once(collector, request, by_id(collector, link_id), BY_ID)


def slug_at_once(collector: Collector, request: ParsedRequest, name: str) -> bytes | None:
    """Answer as `slug` does, without waiting for anything."""
    if _is_reserved(name):
        return None
    return _follow_at_once(collector, request, by_slug(collector, name), BY_SLUG)


def by_id(collector: Collector, link_id: str) -> Link | None:
    """Give the link of an id as a path has it."""
    is_one = len(link_id) <= _LONGEST_ID and link_id.isdecimal() and link_id.isascii()
    return collector.links.by_id(int(link_id)) if is_one else None


def by_slug(collector: Collector, name: str) -> Link | None:
    """Give the link of a slug."""
    return None if _is_reserved(name) else collector.links.by_slug(name)


async def _follow(
    collector: Collector, request: web.BaseRequest, link: Link | None, found: int
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
        mount = Mount(raw_path(request), target, takes_rest=found == BY_SLUG)
        return await _proxied(collector, request, mount, "")
    return _redirect(target, found, otherwise="no-target")


def _follow_at_once(
    collector: Collector, request: ParsedRequest, link: Link | None, found: int
) -> bytes | None:
    """Walk as `_follow` does, in one go; what does not redirect is left to it: None, nothing done."""
    if link is not None and link.mode != "redirect":
        return None
    visit = visit_of(collector, request)
    if link is None:
        return _orphan_at_once(collector, request, visit, "unknown")
    state = state_of(link, visit.at_ms)
    if state != "live":
        return _orphan_at_once(collector, request, visit, state)
    platform = platform_of(visit.user_agent)
    target = _target(request, link, visit, platform)
    return _redirect_at_once(collector, target, found, Click(link, visit, platform, target))


def _orphan_at_once(
    collector: Collector, request: ParsedRequest, visit: Visit, reason: OrphanReason
) -> bytes | None:
    target = collector.settings.error_page_url
    orphan = Orphan(visit, raw_path(request), reason, target)
    return _redirect_at_once(collector, target, _TO_ERROR_PAGE, orphan)


def _redirect_at_once(
    collector: Collector, target: str | None, status: int, seen: Click | Orphan
) -> bytes | None:
    answer = redirect(status, target, collector.own_lines) if target else None
    if answer is not None:
        collector.note(seen)
    return answer


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


async def _orphan(
    collector: Collector, request: web.BaseRequest, visit: Visit, reason: OrphanReason
) -> web.Response:
    target = collector.settings.error_page_url
    if request.method != hdrs.METH_HEAD:
        await collector.record(Orphan(visit, raw_path(request), reason, target).event())
    return _redirect(target, _TO_ERROR_PAGE, otherwise=f"{reason.replace('_', '-')}-link")


def _redirect(target: str | None, found: int, *, otherwise: str) -> web.Response:
    """Redirect to the target, byte for byte as recorded, or an empty 404 that says why."""
    if target is None:
        return web.Response(status=404, headers={**OF_LINKS, WHY: otherwise})
    return web.Response(status=found, headers={**OF_LINKS, hdrs.LOCATION: target})


def _is_reserved(name: str) -> bool:
    return name in RESERVED_SLUGS or name.startswith("apple-")
