"""The sync API: another system, which is where links are made, tells us of each that is created or deleted.

    POST /api/{version}/create|delete    campaign_link=<JSON of the record>&pepper=<SHA-1>, X-Api-Salt: <salt>

The pepper is the SHA-1 of salt + campaign_link + API_SECRET_KEY, in hex. Whoever cannot make it learns nothing, not
even that there is such an API. Format and hash are those of the systems that call it; TLS does the hiding.
"""

import json
from hashlib import sha1
from hmac import compare_digest
from typing import Any, Final

from aiohttp import web

from collector.app import Collector
from collector.event import decode_query
from links.link import InvalidLinkError, link_of
from links.store import LinkStoreError
from process.protocol import WHY, read_body
from process.tasks import within

SALT: Final = "X-Api-Salt"
_FORM: Final = "application/x-www-form-urlencoded"

STORE_SECONDS: Final = 5.0
"""For the database to take a link, which may wait for another change that is under way."""


async def create(collector: Collector, request: web.BaseRequest) -> web.Response:
    """Make a link, or assign the keys of the record that are given to the one with its id."""
    return await _sync(collector, request, _create)


async def delete(collector: Collector, request: web.BaseRequest) -> web.Response:
    """Delete the link with the record's id; one that is not there is fine."""
    return await _sync(collector, request, _delete)


async def _create(collector: Collector, record: dict[str, Any]) -> None:
    await collector.link_store.assign(record)


async def _delete(collector: Collector, record: dict[str, Any]) -> None:
    await collector.link_store.delete([link_of({"id": record.get("id")}).id])


async def _sync(collector: Collector, request: web.BaseRequest, change: Any) -> web.Response:
    form = dict(decode_query(await read_body(request)))
    text, pepper = form.get(b"campaign_link") or b"", form.get(b"pepper") or b""
    secret = collector.settings.api_secret_key
    if secret is None and not collector.settings.api_open:
        return _unknown()
    if secret is not None:
        salt = request.headers.get(SALT, "").encode("utf-8", "surrogateescape")
        if not salt or not compare_digest(pepper.lower(), pepper_of(salt, text, secret.get_secret_value())):
            return _unknown()
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        wanted = f"wanted the form fields campaign_link (a JSON object) and pepper, as {_FORM}"
        return _refused(400, "record", wanted)
    try:
        await within(STORE_SECONDS, change(collector, record))
    except InvalidLinkError as error:
        return _refused(422, error.field, str(error))
    except (LinkStoreError, TimeoutError):
        return _refused(503, "database", "the database of links is away: try again", "links-database-away")
    return web.json_response({"status": "ok"})


def pepper_of(salt: bytes, campaign_link: bytes, secret: str) -> bytes:
    """Give the pepper of a call, in lower-case hex."""
    return sha1(salt + campaign_link + secret.encode(), usedforsecurity=False).hexdigest().encode()


def _unknown() -> web.Response:
    return web.Response(status=404, headers={WHY: "no-such-path"})


def _refused(status: int, field: str, problem: str, why: str = "invalid-link") -> web.Response:
    answer = {"status": "error", "field": field, "error": problem}
    return web.json_response(answer, status=status, headers={WHY: why})
