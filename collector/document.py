"""A page of the frontend in memory, and how a visitor is answered with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from collector import caching
from collector.upstream import Headers
from process.protocol import WHY

MOST_QUERIES: Final = 32
"""For which one copy is known to be fresh: newsletters and posts come in waves."""

LONGEST_QUERY: Final = 512

REST_SECONDS: Final = 1.0
"""After trouble: visitors meanwhile do not wait for the same again, and a frontend that is down is left alone."""

_OF_THE_BODY: Final = ("Content-Type", "Content-Encoding", "Content-Length")


@dataclass(slots=True)
class Document:
    """A page as the frontend gave it."""

    headers: CIMultiDict[str]
    body: bytes
    public: bool = False
    """Whether it is the same for visitors with a cookie."""
    fresh_until: dict[str, float] = field(default_factory=dict)
    """For how long the frontend need not be asked, by the query that it was asked with."""
    good_until: float = 0.0
    """For how long it may stand in for an answer that cannot be had."""
    born: float = 0.0
    """When an answer that says `Age: 0` today was made."""
    trouble: str = ""
    """Why there was no answer the last time."""
    left_alone_until: float = 0.0
    """After trouble the frontend is not asked for this page before then."""
    _head: bytes = b""

    @staticmethod
    def of(headers: CIMultiDict[str], body: bytes, query: str, now: float) -> "Document":
        """Give the document that an answer with these headers is; they are ours from now on."""
        document = Document(headers, body)
        document.renew(headers, query, now)
        return document

    @property
    def size(self) -> int:
        """What it takes in memory, about."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers.items())

    def renew(self, headers: CIMultiDict[str], query: str, now: float) -> None:
        """Take over what the frontend says of it now."""
        self.public = caching.is_public(headers)
        self.born = now - caching.age_of(headers)
        self.good_until = now + caching.stale_seconds(headers)
        self._note_fresh(query, now + caching.fresh_seconds(headers))
        headers.popall("Age", None)
        headers.popall("Content-Length", None)
        headers.setdefault("Date", formatdate(usegmt=True))  # of which its age is told
        self.headers = headers
        self.trouble, self.left_alone_until, self._head = "", 0.0, b""

    def _note_fresh(self, query: str, until: float) -> None:
        self.fresh_until.pop(query, None)
        if len(query) <= LONGEST_QUERY:
            if len(self.fresh_until) >= MOST_QUERIES:
                del self.fresh_until[next(iter(self.fresh_until))]
            self.fresh_until[query] = until

    def is_fresh(self, query: str, headers: Headers, now: float) -> bool:
        """Tell whether a visitor can have it without a second look."""
        return (
            self.fresh_until.get(query, 0.0) > now
            and (self.public or "Cookie" not in headers)
            and not caching.wants_the_newest(headers)
        )

    def failed(self, why: str, now: float) -> None:
        """Note that the frontend gave no answer."""
        self.trouble = why
        self.left_alone_until = now + REST_SECONDS

    def conditions(self) -> dict[str, str]:
        """Give the headers that ask whether this is still what there is; none where nothing would tell."""
        if "ETag" in self.headers:
            return {"If-None-Match": self.headers["ETag"]}
        if "Last-Modified" in self.headers:
            return {"If-Modified-Since": self.headers["Last-Modified"]}
        return {}

    def ready(self, own_headers: Mapping[str, str], now: float) -> bytes:
        """Give the whole answer to a GET that keeps its connection: bytes that are put together once."""
        if not self._head:
            headers = self.headers.copy()
            headers.update(own_headers)
            headers["Content-Length"] = str(len(self.body))
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self._head = f"HTTP/1.1 200 OK\r\n{lines}".encode("utf-8", "surrogateescape")
        return b"%bAge: %d\r\n\r\n%b" % (self._head, self._age(now), self.body)

    def response(self, request: web.BaseRequest, now: float, *, stale: bool = False) -> web.Response:
        """Answer with it: 304 to a visitor who has it already; a `stale` answer says so, and why."""
        headers = self.headers.copy()
        headers["Age"] = str(self._age(now))
        if stale:
            headers["Warning"] = '110 onward "Response is Stale"'
            headers[WHY] = f"stale: {self.trouble}"
        if not self._is_known_to(request):
            return web.Response(body=self.body, headers=headers)
        for name in _OF_THE_BODY:
            headers.popall(name, None)
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)

    def _age(self, now: float) -> int:
        return max(int(now - self.born), 0)

    def _is_known_to(self, request: web.BaseRequest) -> bool:
        tags = request.if_none_match
        if tags is not None:
            own = self.headers.get("ETag", "").removeprefix("W/").strip('"')
            return any(tag.value in ("*", own) for tag in tags)
        since = request.if_modified_since
        if since is None or "Last-Modified" not in self.headers:
            return False
        try:
            return parsedate_to_datetime(self.headers["Last-Modified"]) <= since
        except (ValueError, TypeError):  # no date; or one without a zone
            return False
