"""A request for the web site turns out to be a page view, and its referral is written down."""

from aiohttp import hdrs

from collector.app import Collector
from collector.lane import Lane
from collector.referral import Referral, arrival_of, host_name, is_page_view
from collector.visit import visit_of
from collector.wanted import Wanted
from process.at_once import AnyRequest


def note_view(
    collector: Collector, request: AnyRequest, wanted: Wanted, status: int | None, content_type: str = ""
) -> Lane | None:
    """Write down the referral that a request is by its answer, if it is one; gives the lane that it takes.

    `status` None: there is no answer.
    """
    settings, headers = collector.settings, wanted.headers
    if not settings.referrals_direct and hdrs.REFERER not in headers:
        return None  # most, and it shall cost them nothing
    if not is_page_view(request.method, wanted.path, headers, status, content_type):
        return None
    host = host_name(wanted.host)
    arrival = arrival_of(headers, host, settings.site_hosts, direct=settings.referrals_direct)
    if arrival is None:
        return None
    visit = visit_of(collector, request, keep_referer=False)
    return collector.write_down(Referral(visit, arrival, host, wanted.path).event())
