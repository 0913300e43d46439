"""One request for the web site on its way: what there is in memory for it, and what the site is told of it."""

from dataclasses import dataclass, replace
from typing import Final

from aiohttp import hdrs, web
from yarl import URL

from collector.app import Collector
from collector.caching import may_come_from_memory
from collector.document import Document
from collector.forwarded import asked_host, forwarded_headers
from collector.frontend import Frontend
from collector.host import Trusts, peer_of
from collector.lane import Lane
from collector.page_view import referral_of
from collector.upstream import request_headers
from collector.visit import raw_path
from collector.wanted import Wanted
from collector.websocket import asks_for_a_socket
from process.at_once import AnyRequest
from process.protocol import WHY

CONDITIONS: Final = frozenset({"if-none-match", "if-modified-since"})
_ONES_OWN: Final = frozenset({"cookie", "referer", *CONDITIONS})


@dataclass(slots=True)
class Passage:
    """A request that is answered with what the web site says."""

    collector: Collector
    frontend: Frontend
    request: web.BaseRequest
    wanted: Wanted
    is_shareable: bool
    """Whether what others get is for this visitor too."""
    document: Document | None
    """A copy of it."""
    lane: Lane | None = None
    """Where its event is, if it has one."""
    _seen: bool = False

    @staticmethod
    def of(collector: Collector, frontend: Frontend, request: web.BaseRequest) -> "Passage":
        """Read a request."""
        wanted = wanted_of(request, collector.trusts)
        is_shareable = not request.body_exists and may_come_from_memory(request.method, wanted.headers)
        document = frontend.documents.find(wanted) if is_shareable else None
        return Passage(collector, frontend, request, wanted, is_shareable, document)

    @property
    def is_socket(self) -> bool:
        """Whether it wants to become a WebSocket, which is no page view."""
        return asks_for_a_socket(self.request)

    @property
    def url(self) -> URL:
        """Where the frontend has it: byte for byte as it was asked for."""
        path, query = self.wanted.path, self.wanted.query
        return URL(f"{self.frontend.origin}{path}{query and '?'}{query}", encoded=True)

    @property
    def fresh(self) -> Document | None:
        """The copy, if the frontend need not be asked."""
        document, wanted = self.document, self.wanted
        is_fresh = document and document.is_fresh(wanted.query, wanted.headers, self.frontend.documents.now())
        return document if is_fresh else None

    @property
    def stand_in(self) -> Document | None:
        """The copy, if it may stand in for an answer."""
        document = self.document
        return document if document and document.good_until > self.frontend.documents.now() else None

    @property
    def withheld(self) -> frozenset[str]:
        """Headers of the visitor's that say what only we may say."""
        return frozenset({self.collector.settings.client_ip_header.lower()})

    def sent_headers(self) -> dict[str, str]:
        """Give what the frontend is told about the visitor."""
        return forwarded_headers(self.collector.client_of(self.request), self.wanted.host, self.wanted.scheme)

    def refresh(self, document: Document) -> None:
        """Have a copy fetched anew, as for anybody."""
        sent = {**self.sent_headers(), **document.conditions()}
        headers = request_headers(self.wanted.headers, sent, self.withheld | _ONES_OWN)
        self.frontend.refreshes.start(replace(self.wanted, headers=headers), document, self.url, headers)

    def seen(self, status: int | None, content_type: str = "") -> None:
        """Write down the page view that this is, if it is one, and once."""
        if not self._seen:
            self._seen = True
            referral = referral_of(self.collector, self.request, self.wanted, status, content_type)
            self.lane = self.collector.write_down(referral.event()) if referral else None

    def shown(self, document: Document, how: str) -> web.Response:
        """Answer with a copy: `fresh`, `confirmed` or `stale`."""
        self.frontend.served[how] += 1
        response = document.response(self.request, self.frontend.documents.now(), stale=how == "stale")
        self.seen(response.status, document.headers.get(hdrs.CONTENT_TYPE, ""))
        return response

    def refused(self, status: int, why: str) -> web.Response:
        """Answer that there is no answer."""
        response = web.Response(status=status, headers={hdrs.CACHE_CONTROL: "no-store", WHY: why})
        if self.request.body_exists:
            response.force_close()  # nobody reads the rest of it
        return response


def wanted_of(request: AnyRequest, trusts: Trusts) -> Wanted:
    """Read a request; what proxies say of host and scheme counts where they are trusted."""
    headers = request.headers
    host, told_scheme = headers.get(hdrs.HOST, ""), None
    if (hdrs.X_FORWARDED_HOST in headers or hdrs.X_FORWARDED_PROTO in headers) and trusts(peer_of(request)):
        host = headers.get(hdrs.X_FORWARDED_HOST) or host
        told_scheme = headers.get(hdrs.X_FORWARDED_PROTO)
    if told_scheme not in ("http", "https"):
        tls = request.transport and request.transport.get_extra_info("sslcontext")
        told_scheme = "https" if tls else "http"
    query = request.raw_path.partition("?")[2]
    return Wanted(told_scheme, asked_host(host), raw_path(request), query, headers)
