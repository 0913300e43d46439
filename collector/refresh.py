"""Pages that the frontend is slow to give: visitors get the copy there is, and it is fetched anew behind their backs.

Without that a page that always takes longer than visitors wait would stay in memory as it was once.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Self

import aiohttp
from aiohttp import hdrs
from yarl import URL

from collector.document import Document
from collector.documents import Documents
from collector.upstream import Headers, end_to_end
from collector.wanted import Wanted
from process.tasks import end

MOST_AT_ONCE: Final = 16
"""So that most of the frontend's connections are left for visitors."""

REFRESH_SECONDS: Final = 60.0
"""For the whole of it."""


class Refreshes:
    """Those under way, one a document."""

    def __init__(self, http: aiohttp.ClientSession, documents: Documents) -> None:
        self._http = http
        self._documents = documents
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._tasks)

    def start(self, wanted: Wanted, document: Document, url: URL, headers: Mapping[str, str]) -> None:
        """Fetch a document anew, if not too many are under way; meanwhile it stands in for itself."""
        if len(self._tasks) >= MOST_AT_ONCE:
            return
        document.left_alone_until = self._documents.now() + REFRESH_SECONDS
        task = asyncio.create_task(self._refresh(wanted, document, url, headers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refresh(
        self, wanted: Wanted, document: Document, url: URL, headers: Mapping[str, str]
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=REFRESH_SECONDS)
        try:
            async with self._http.get(url, headers=headers, allow_redirects=False, timeout=timeout) as answer:
                said = end_to_end(answer.headers)
                if answer.status == HTTPStatus.NOT_MODIFIED:
                    self._documents.confirm(wanted, document, said)
                    return
                await self._keep(wanted, said, answer)
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            pass  # then it was not slow, but away: visitors notice
        document.failed("upstream-too-slow", self._documents.now())

    async def _keep(self, wanted: Wanted, said: Headers, answer: aiohttp.ClientResponse) -> None:
        ends_visibly = answer.content_length is not None or hdrs.TRANSFER_ENCODING in answer.headers
        incoming = self._documents.incoming(wanted, answer.status, said, ends_visibly=ends_visibly)
        if incoming is None:
            return
        whole = False
        try:
            async for part in answer.content.iter_any():
                incoming.add(part)
            whole = True
        finally:
            incoming.close(whole=whole)
