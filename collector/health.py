"""Is it there, does it turn, should it get visitors: `/check`, `/healthz`, `/readyz`, `/metrics`."""

from aiohttp import web

from collector.app import Collector
from collector.metrics import FAMILIES
from process.metrics import exposition
from process.protocol import WHY
from process.readiness import Readiness
from process.watch import metrics_response


async def check(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell whether every Redis answers."""
    if await collector.redises_away():
        return web.Response(status=503, text="Database unreachable")
    return web.Response(text="OK")


async def healthz(_collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell that the loop turns."""
    return web.Response(text="OK")


async def readyz(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Tell whether visitors should be sent here, and why not."""
    return (await readiness(collector)).response()


async def metrics(collector: Collector, _request: web.BaseRequest) -> web.Response:
    """Give the metrics on the public port, where that is wanted."""
    if collector.settings.metrics_public:
        return metrics_response(metrics_text(collector))
    return web.Response(status=404, headers={WHY: "metrics-not-public"})


def metrics_text(collector: Collector) -> bytes:
    """Give the metrics of all processes, our own as of now."""
    collector.pin_metrics()
    return exposition(FAMILIES, collector.board.read())


async def readiness(collector: Collector) -> Readiness:
    """Ask everything that visitors, or their events, depend on.

    Visitors are served as long as links were loaded once and events can be written down; a Redis or a database
    that is away costs them nothing.
    """
    against = {
        "stopping": collector.stopping,
        "no link table was ever loaded": not collector.links.loaded,
        "the journal cannot be written": collector.journal_refuses(),
        "the journal is over half full": collector.space.is_crowded,
    }
    trouble = collector.links.trouble
    away = await collector.redises_away()
    redises = len(collector.settings.redis_urls)
    degraded = [f"Redis {number} of {redises} away" for number in away]
    for number, queue, lane in collector.lanes():
        if number not in away and lane.trouble is not None:
            degraded.append(f"Redis {number} of {redises} {lane.trouble} ({queue})")
    if stranded := len(collector.shipper.adoption.stranded):
        degraded.append(f"journals that no Redis of ours may take: {stranded} (see: collector journals list)")
    if unreadable := len(collector.shipper.adoption.unreadable):
        degraded.append(f"journals that cannot be read: {unreadable} (see: collector journals list)")
    if trouble is not None:
        degraded.append(f"the database of links is {trouble}")
    return Readiness(tuple(reason for reason, holds in against.items() if holds), tuple(degraded))
