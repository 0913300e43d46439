"""One request for the web site: what is known of it, what the site is told of it, and its page view, if it is one."""

from dataclasses import dataclass, replace
from typing import Final

from aiohttp import hdrs, web
from yarl import URL

from collector.app import Collector
from collector.caching import may_come_from_memory
from collector.document import Document
from collector.documents import Wanted
from collector.forwarded import asked_host, forwarded_headers
from collector.frontend import Frontend
from collector.host import peer_of
from collector.lane import Lane
from collector.referral import Referral, arrival_of, host_name, is_page_view
from collector.upstream import request_headers
from collector.visit import raw_path, visit_of
from collector.websocket import asks_for_a_socket
from process.protocol import WHY

CONDITIONS: Final = frozenset({"if-none-match", "if-modified-since"})
_ONES_OWN: Final = frozenset({"cookie", "referer", *CONDITIONS})


@dataclass(slots=True)
class Passage:
    """A request on its way through."""

    collector: Collector
    frontend: Frontend
    request: web.BaseRequest
    host: str
    """As the visitor named it, with its port."""
    wanted: Wanted
    is_socket: bool
    """Whether it wants to become a WebSocket, which is no page view."""
    document: Document | None = None
    """A copy of it."""
    lane: Lane | None = None
    """Where its event is, if it has one."""
    _noted: bool = False

    @staticmethod
    def of(collector: Collector, frontend: Frontend, request: web.BaseRequest) -> "Passage":
        """Read a request."""
        headers = request.headers
        host, scheme = headers.get(hdrs.HOST, ""), "https" if request.secure else "http"
        if collector.trusts(peer_of(request)):
            host = headers.get(hdrs.X_FORWARDED_HOST) or host
            told = headers.get(hdrs.X_FORWARDED_PROTO, "").lower()
            scheme = told if told in ("http", "https") else scheme
        host = asked_host(host)
        wanted = Wanted(f"{scheme}://{host}", raw_path(request), request.raw_path.partition("?")[2], headers)
        passage = Passage(collector, frontend, request, host, wanted, asks_for_a_socket(request))
        if passage.is_shareable:
            passage.document = frontend.documents.find(wanted)
        return passage

    @property
    def url(self) -> URL:
        """Where the frontend has it: byte for byte as it was asked for."""
        path, query = self.wanted.path, self.wanted.query
        return URL(f"{self.frontend.origin}{path}{query and '?'}{query}", encoded=True)

    @property
    def is_shareable(self) -> bool:
        """Whether what others get is for this visitor too."""
        request = self.request
        if request.body_exists or self.is_socket:
            return False
        return may_come_from_memory(request.method, request.headers)

    @property
    def fresh(self) -> Document | None:
        """The copy, if the frontend need not be asked."""
        document, now = self.document, self.frontend.documents.now()
        is_fresh = document is not None and document.is_fresh(self.wanted.query, self.wanted.headers, now)
        return document if is_fresh else None

    @property
    def stand_in(self) -> Document | None:
        """The copy, if it may stand in for an answer."""
        document = self.document
        return document if document and document.good_until > self.frontend.documents.now() else None

    def sent_headers(self) -> dict[str, str]:
        """Give what the frontend is told about the visitor."""
        address = self.collector.client_of(self.request)
        return forwarded_headers(address, self.host, self.wanted.site.partition(":")[0])

    def refresh(self, document: Document) -> None:
        """Have a copy fetched anew, as for anybody."""
        sent = {**self.sent_headers(), **document.conditions()}
        headers = request_headers(self.wanted.headers, sent, self.withheld | _ONES_OWN)
        self.frontend.refreshes.start(replace(self.wanted, headers=headers), document, self.url, headers)

    @property
    def withheld(self) -> frozenset[str]:
        """Headers of the visitor's that say what only we may say."""
        return frozenset({self.collector.settings.client_ip_header.lower()})

    def seen(self, status: int | None, content_type: str = "") -> None:
        """Write down the page view that this is, if it is one; `status` None: there was no answer."""
        headers, path = self.wanted.headers, self.wanted.path
        if self._noted or not is_page_view(self.request.method, path, headers, status, content_type):
            return
        self._noted = True
        settings, host = self.collector.settings, host_name(self.host)
        arrival = arrival_of(headers, host, settings.site_hosts, direct=settings.referrals_direct)
        if arrival is not None:
            visit = visit_of(self.collector, self.request)
            self.lane = self.collector.write_down(Referral(visit, arrival, host, path).event())

    def shown(self, document: Document, how: str) -> web.Response:
        """Answer with a copy: `fresh`, `confirmed` or `stale`."""
        self.frontend.served[how] += 1
        now = self.frontend.documents.now()
        response = document.response(self.request, now, stale=how == "stale")
        self.seen(response.status, document.headers.get(hdrs.CONTENT_TYPE, ""))
        return response

    def refused(self, status: int, why: str) -> web.Response:
        """Answer that there is no answer."""
        response = web.Response(status=status, headers={hdrs.CACHE_CONTROL: "no-store", WHY: why})
        if self.request.body_exists:
            response.force_close()  # nobody reads the rest of it
        return response
