"""HTTP_PORT: what a visitor without TLS gets. Challenges of ACME are answered, everything else goes to HTTPS.

The host a visitor is sent to is the one that was asked for: nothing but a plain name or address gets through, so
that nobody can be made to go elsewhere by a link, and no header can be split.
"""

import re
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from collector.settings import CollectorSettings
from process.protocol import SERVER, WHY

CHALLENGES: Final = "/.well-known/acme-challenge/"

HTTPS_PORT: Final = 443

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_CHALLENGE_BYTES: Final = 4096
"""RFC 8555 makes them a token, a dot and 43 characters: some 90."""

_LONGEST_HOST: Final = 255
_HOST: Final = re.compile(
    r"(?P<host>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?"
)
_TARGET: Final = re.compile(r"/[!-~]*")
"""A path and a query as clients send them: nothing that could end a header."""


async def answer(
    settings: CollectorSettings, https_port: int, request: web.BaseRequest
) -> web.StreamResponse:
    """Answer one request on HTTP_PORT."""
    path = request.raw_path.partition("?")[0]
    if path.startswith(CHALLENGES):
        response = challenge_response(settings.acme_dir, request.method, path.removeprefix(CHALLENGES))
    else:
        location = https_url(request.headers.getall(hdrs.HOST, ()), request.raw_path, https_port)
        if location is None:
            response = web.Response(status=400, headers={WHY: "bad-host-or-target"})
        else:
            response = web.Response(
                # Forever only for hosts whose browsers are told to use HTTPS anyway.
                status=308 if settings.hsts_seconds else 307,
                headers={hdrs.LOCATION: location, hdrs.CACHE_CONTROL: "no-store"},
            )
    if request.body_exists:
        response.force_close()  # what nobody reads shall not keep the connection
    response.headers[hdrs.SERVER] = SERVER
    return response


def challenge_response(acme_dir: Path | None, method: str, token: str) -> web.Response:
    """Answer the authority that asks whether this host is ours (RFC 8555, 8.3)."""
    if method not in {hdrs.METH_GET, hdrs.METH_HEAD}:
        return web.Response(status=405, headers={hdrs.ALLOW: "GET, HEAD", WHY: "method-not-allowed"})
    body = challenge(acme_dir, token)
    if body is None:
        return web.Response(status=404, headers={WHY: "no-such-challenge"})
    return web.Response(body=body, content_type="text/plain")


def challenge(acme_dir: Path | None, token: str) -> bytes | None:
    """Read a challenge: ACME clients put it into the folder, or where it would be in a web server's root."""
    if acme_dir is None or not _TOKEN.fullmatch(token):
        return None
    for folder in (acme_dir, acme_dir / CHALLENGES.strip("/")):
        try:
            with (folder / token).open("rb") as file:
                return file.read(_LONGEST_CHALLENGE_BYTES)
        except OSError:
            continue
    return None


def https_url(hosts: tuple[str, ...] | list[str], target: str, port: int) -> str | None:
    """Give the HTTPS URL for the Host headers and the target of a request's first line; None if they are no such.

    An absolute target (`http://host/path`) names the host itself, and the header does not count (RFC 9112, 3.2.2).
    """
    if target[:7].lower() == "http://":
        host, slash, path = target[7:].partition("/")
        hosts, target = (host,), slash + path or "/"
    if len(hosts) != 1 or len(hosts[0]) > _LONGEST_HOST or not _TARGET.fullmatch(target):
        return None
    match = _HOST.fullmatch(hosts[0])
    if match is None or (match["ipv6"] and not _is_ipv6(match["ipv6"])):
        return None
    return f"https://{match['host']}{'' if port == HTTPS_PORT else f':{port}'}{target}"


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
