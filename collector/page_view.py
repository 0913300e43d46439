"""A request for the web site turns out to be a page view, and that a referral."""

from aiohttp import hdrs

from collector.app import Collector
from collector.referral import Referral, arrival_of, host_name, is_page_view
from collector.visit import visit_of
from collector.wanted import Wanted
from process.at_once import AnyRequest


def referral_of(
    collector: Collector, request: AnyRequest, wanted: Wanted, status: int | None, content_type: str = ""
) -> Referral | None:
    """Give the referral that a request is by its answer, if it is one.

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
    return Referral(visit, arrival, host, wanted.path)
