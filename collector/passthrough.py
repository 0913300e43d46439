"""The web site behind us, relayed; and of each page view that came from elsewhere, the referring domain.

An event is written down when it is known that a page was viewed: at the headers of the frontend's answer, before
the first byte of ours; that costs microseconds. What DURABILITY waits for besides (a disk, Redis) keeps the end of
the answer waiting, never its beginning.
"""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from collector.app import Collector
from collector.caching import may_come_from_memory
from collector.forwarded import lead_to_us
from collector.frontend import Frontend
from collector.page_view import referral_of
from collector.passage import CONDITIONS, Passage, wanted_of
from collector.relay import NOBODY, Answer, asked
from collector.upstream import UpstreamError, request_headers
from collector.websocket import tunnel
from process.at_once import ParsedRequest

_NO_ANSWER: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, NOBODY})
_AS_GOOD_AS_NONE: Final = frozenset({500, 502, 503, 504})
"""RFC 5861: answers in whose place a copy may stand."""


async def pass_through(
    collector: Collector, frontend: Frontend, request: web.BaseRequest
) -> web.StreamResponse:
    """Answer any request with what the web site says, and record the page view that it may be."""
    passage = Passage.of(collector, frontend, request)
    try:
        response = await _answer(passage)
    except UpstreamError as error:
        response = _without_answer(passage, error)
    except asyncio.CancelledError:  # the process is told to stop: who still waits gets no answer
        if not passage.is_socket:
            passage.seen(None)
        raise
    if not response.prepared:
        response.headers.update(collector.own_headers)
    if passage.lane is not None:
        with suppress(ConnectionError):  # a visitor who has left
            await response.prepare(request)
            await response.write_eof()
        await passage.lane.safe()
    return response


def page_at_once(collector: Collector, frontend: Frontend, request: ParsedRequest) -> bytes | None:
    """Answer with a page from memory, without waiting for anything: what `pass_through` says of a fresh one.

    None, with nothing done, for all others.
    """
    headers = request.headers
    if not may_come_from_memory(request.method, headers):
        return None
    if hdrs.IF_NONE_MATCH in headers or hdrs.IF_MODIFIED_SINCE in headers:
        return None
    wanted, now = wanted_of(request, collector.trusts), frontend.documents.now()
    document = frontend.documents.find(wanted)
    if document is None or not document.is_fresh(wanted.query, headers, now):
        return None
    frontend.served["fresh"] += 1
    content_type = document.headers.get(hdrs.CONTENT_TYPE, "")
    referral = referral_of(collector, request, wanted, HTTPStatus.OK, content_type)
    answer = document.ready(collector.own_headers, now)
    if referral is not None:
        collector.note(referral)  # last: whatever fails before is asked again, and would be noted twice
    return answer


async def _answer(passage: Passage) -> web.StreamResponse:
    request, fresh, stand_in = passage.request, passage.fresh, passage.stand_in
    if passage.is_socket:
        headers = request_headers(request.headers, passage.sent_headers(), passage.withheld)
        own_headers, sockets = passage.collector.own_headers, passage.frontend.sockets
        return await tunnel(request, sockets, passage.url, headers, own_headers) or await _relayed(passage)
    if fresh is not None:
        return passage.shown(fresh, "fresh")
    if stand_in is not None and stand_in.left_alone_until > passage.frontend.documents.now():
        return passage.shown(stand_in, "stale")
    return await _relayed(passage)


async def _relayed(passage: Passage) -> web.StreamResponse:
    """Ask the frontend, whether a copy is still good if there is one, and hand on what it says."""
    documents, document, stand_in = passage.frontend.documents, passage.document, passage.stand_in
    conditions = document.conditions() if document and passage.request.method == hdrs.METH_GET else {}
    async with asked(
        passage.request,
        passage.frontend.http,
        passage.url,
        sent_headers={**passage.sent_headers(), **conditions},
        withheld=passage.withheld | CONDITIONS if conditions else passage.withheld,
        bounds=passage.frontend.bounds_with_a_copy if stand_in else passage.frontend.bounds,
    ) as answer:
        if document and conditions and answer.status == HTTPStatus.NOT_MODIFIED:
            lead_to_us(answer.headers, passage.frontend.origin)
            return passage.shown(documents.confirm(passage.wanted, document, answer.headers), "confirmed")
        if stand_in and answer.status in _AS_GOOD_AS_NONE:
            raise UpstreamError(answer.status, f"upstream-says-{answer.status}")
        await _handed_on(passage, answer)
    return answer.response


async def _handed_on(passage: Passage, answer: Answer) -> None:
    """Give the visitor the frontend's answer, and keep a copy of what is a page for everybody."""
    headers = answer.headers
    lead_to_us(headers, passage.frontend.origin)
    passage.seen(answer.status, headers.get(hdrs.CONTENT_TYPE, ""))
    incoming = None
    if passage.is_shareable and passage.request.method == hdrs.METH_GET:
        incoming = passage.frontend.documents.incoming(
            passage.wanted, answer.status, headers, ends_visibly=answer.ends_visibly
        )
    headers.update(passage.collector.own_headers)
    try:
        await answer.hand_on(headers, incoming.add if incoming else None)
    finally:
        if incoming is not None:
            incoming.close(whole=answer.whole)


def _without_answer(passage: Passage, error: UpstreamError) -> web.StreamResponse:
    """Show a copy in place of an answer that cannot be had, or say why there is none."""
    if error.status in _AS_GOOD_AS_NONE:
        passage.frontend.note_failure(error.why)
        stand_in = passage.stand_in
        if stand_in is not None:
            stand_in.failed(error.why, passage.frontend.documents.now())
            if error.status == HTTPStatus.GATEWAY_TIMEOUT:
                passage.refresh(stand_in)
            return passage.shown(stand_in, "stale")
    if error.status in _NO_ANSWER and not passage.is_socket:
        passage.seen(None)
    return passage.refused(error.status, error.why)
