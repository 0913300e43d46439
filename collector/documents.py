"""The frontend's pages in memory: which there are, how many, and which of them are forgotten.

A page has one name however its visitors were sent here (`caching.page_of`), and a copy for each kind of visitor
that the frontend tells apart (Vary). A copy answers while it is fresh; after that the frontend is asked, and only
where it does not answer the copy stands in.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from multidict import CIMultiDict

from collector import caching
from collector.document import Document
from collector.upstream import Headers
from collector.wanted import Wanted

MOST_PAGES: Final = 256
MOST_VARIANTS: Final = 16
"""Of one page: browsers name their codings in half a dozen ways, and their languages in more."""

LONGEST_VARIANT: Final = 1024
"""What browsers say has 100 characters."""

LARGEST_BYTES: Final = 1024**2
"""Of one page; a large one has 100 KB."""

MOST_BYTES: Final = 32 * 1024**2
"""Of all pages, in each of WEB_CONCURRENCY processes."""

MOST_INCOMING_BYTES: Final = 16 * 1024**2
"""Of pages on their way to visitors, who may be slow; what exceeds it is not kept."""

_WHAT_THE_SITE_SHOWS: Final = frozenset({200, 301, 302, 303, 307, 308, 404, 410})
"""Answers after which an older one is not."""


@dataclass(slots=True)
class _Page:
    vary: tuple[str, ...]
    copies: dict[tuple[str, ...], Document] = field(default_factory=dict)


class Documents:
    """Pages, the one not wanted for the longest time first."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.bytes = 0
        self.incoming_bytes = 0
        self._pages: OrderedDict[str, _Page] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def find(self, wanted: Wanted) -> Document | None:
        """Give the copy for this visitor, fresh or not."""
        name = wanted.page
        page = self._pages.get(name)
        if page is None:
            return None
        self._pages.move_to_end(name)
        return page.copies.get(caching.variant_of(page.vary, wanted.headers))

    def confirm(self, wanted: Wanted, document: Document, headers: Headers) -> Document:
        """Give what a 304 with these headers says is still there; for others, too, if they may have it."""
        renewed = caching.confirmed(document.headers, headers)
        if not caching.may_be_kept(wanted.headers, renewed):
            if "Cookie" not in wanted.headers:
                self.forget(wanted)
            return Document.of(renewed, document.body, wanted.query, self.now())
        before = document.size
        document.renew(renewed, wanted.query, self.now())
        if self._holds(wanted, document):
            self.bytes += document.size - before
        return document

    def incoming(
        self, wanted: Wanted, status: int, headers: Headers, *, ends_visibly: bool
    ) -> "Incoming | None":
        """Give what collects an answer's body on its way, where that is a page to be kept.

        Where it is not, and came for anybody, an older copy is not shown any more.
        """
        html = headers.get("Content-Type", "").lower().startswith("text/html")
        is_document = html or wanted.path in ("/", "/index.html")
        if status == HTTPStatus.OK and is_document and caching.may_be_kept(wanted.headers, headers):
            return Incoming(self, wanted, headers) if ends_visibly else None
        if status in _WHAT_THE_SITE_SHOWS and "Cookie" not in wanted.headers:
            self.forget(wanted)
        return None

    def keep(self, wanted: Wanted, headers: CIMultiDict[str], body: bytes) -> None:
        """Keep a page; its headers are ours from now on."""
        name, vary = wanted.page, caching.vary_of(headers)
        variant = caching.variant_of(vary, wanted.headers)
        if sum(map(len, variant)) > LONGEST_VARIANT:
            return
        page = self._pages.get(name)
        if page is None or page.vary != vary:
            self.forget(wanted)
            page = self._pages[name] = _Page(vary)
        document = page.copies.pop(variant, None)
        if document is not None:
            self.bytes -= document.size
        elif len(page.copies) >= MOST_VARIANTS:
            self.bytes -= page.copies.pop(next(iter(page.copies))).size
        if document is not None and document.body == body:
            document.renew(headers, wanted.query, self.now())  # for how long, it knows for other queries too
        else:
            document = Document.of(headers, body, wanted.query, self.now())
        page.copies[variant] = document
        self.bytes += document.size
        while len(self._pages) > MOST_PAGES or self.bytes > MOST_BYTES:
            self._drop(next(iter(self._pages)))

    def forget(self, wanted: Wanted) -> None:
        """Forget a page, all copies of it."""
        if wanted.page in self._pages:
            self._drop(wanted.page)

    def _drop(self, name: str) -> None:
        self.bytes -= sum(copy.size for copy in self._pages.pop(name).copies.values())

    def _holds(self, wanted: Wanted, document: Document) -> bool:
        page = self._pages.get(wanted.page)
        return page is not None and any(copy is document for copy in page.copies.values())


class Incoming:
    """A page on its way."""

    def __init__(self, documents: Documents, wanted: Wanted, headers: Headers) -> None:
        self._documents = documents
        self._wanted = wanted
        self._headers = CIMultiDict(headers)
        self._parts: list[bytes] | None = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Take a part, unless all of it becomes too much."""
        if self._parts is None:
            return
        self._parts.append(part)
        self._size += len(part)
        self._documents.incoming_bytes += len(part)
        if self._size > LARGEST_BYTES or self._documents.incoming_bytes > MOST_INCOMING_BYTES:
            self._let_go()

    def close(self, *, whole: bool) -> None:
        """Keep the page if it is whole."""
        if whole and self._parts is not None:
            self._documents.keep(self._wanted, self._headers, b"".join(self._parts))
        self._let_go()

    def _let_go(self) -> None:
        self._documents.incoming_bytes -= self._size
        self._size = 0
        self._parts = None
