"""What browsers, phones and crawlers ask of every host, and is no link."""

from typing import Final

from aiohttp import web

from collector.app import Collector
from collector.plain_http import challenge_response
from process.protocol import WHY

GIF: Final = bytes.fromhex(
    "47494638396101000100800100000000ffffff21f90401000001002c00000000010001000002024c01003b"
)


def no_such_path() -> web.Response:
    """Say that nothing is there."""
    return web.Response(status=404, headers={WHY: "no-such-path"})


async def acme_challenge(collector: Collector, request: web.BaseRequest, token: str) -> web.Response:
    """Answer a certificate authority that asks whether this host is ours."""
    return challenge_response(collector.settings.acme_dir, request.method, token)


async def robots(_collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Ask crawlers to leave links alone."""
    return web.Response(text="User-agent: *\nDisallow: /\n")


async def favicon(_collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Give the smallest picture there is."""
    return web.Response(body=GIF, content_type="image/gif")


async def apple_app_links(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell iOS which paths open in an app."""
    return web.Response(text=collector.settings.app_links_apple, content_type="application/json")


async def android_app_links(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell Android which app may open our links."""
    return web.Response(text=collector.settings.app_links_android, content_type="application/json")
