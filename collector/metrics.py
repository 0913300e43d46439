"""What a collector counts. Sums over `worker` are the whole collector."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from process.metrics import Family, Sample, samples_of_ourselves

if TYPE_CHECKING:
    from collector.app import Collector

FAMILIES: Final = (
    Family("onward_requests_total", "counter", "Requests answered, by route and status"),
    Family("onward_request_seconds", "histogram", "From a request's headers to its answer, by route"),
    Family("onward_connections", "gauge", "Visitors that are connected"),
    Family("onward_connections_max", "gauge", "So many may be"),
    Family(
        "onward_connections_closed_total",
        "counter",
        "Connections closed because there were so many: silent ones (idle), or new ones that found no room (new)",
    ),
    Family("onward_events_recorded_total", "counter", "Events in the journal, by topic"),
    Family(
        "onward_events_dropped_total", "counter", "Events lost because the journal refused them, by reason"
    ),
    Family("onward_events_shipped_total", "counter", "Events that Redis took, by the journal they were in"),
    Family(
        "onward_events_unsafe_total", "counter", "Events answered for before they were as safe as DURABILITY"
    ),
    Family(
        "onward_journal_bytes", "gauge", "Bytes of events on disk, shipped ones that are still kept included"
    ),
    Family("onward_journal_max_bytes", "gauge", "Bytes that they may take"),
    Family(
        "onward_journal_unshipped_bytes", "gauge", "Bytes of this process's events that Redis does not have"
    ),
    Family(
        "onward_journal_torn_bytes_total",
        "counter",
        "Bytes of journals that were no whole event, passed over",
    ),
    Family(
        "onward_journal_gone_bytes_total",
        "counter",
        "Bytes of events that neither Redis nor a journal has any more: lost, but for what Kafka has",
    ),
    Family(
        "onward_journals_stranded",
        "gauge",
        "Journals left behind whose Redis is none of ours; every worker counts all of them",
    ),
    Family(
        "onward_journals_unreadable",
        "gauge",
        "Journals left behind that the system does not let us read or remove; every worker counts all of them",
    ),
    Family("onward_redis_went_back_total", "counter", "Times a Redis had less than it had acknowledged"),
    Family("onward_lanes", "gauge", "Queues this process ships to"),
    Family("onward_lanes_failing", "gauge", "Those of them whose Redis cannot be reached now"),
    Family("onward_links", "gauge", "Links in memory"),
    Family("onward_links_database_up", "gauge", "1 while the database of links answers"),
)


def samples_of(collector: "Collector") -> Iterator[Sample]:
    """Give everything a collector process counts."""
    for (route, status), count in collector.answered.items():
        yield Sample("onward_requests_total", count, {"route": route, "status": str(status)})
    for route, durations in collector.durations.items():
        yield from durations.samples("onward_request_seconds", {"route": route})
    yield Sample("onward_connections", len(collector.crowd))
    yield Sample("onward_connections_max", collector.crowd.most)
    yield Sample("onward_connections_closed_total", collector.crowd.gave_way, {"which": "idle"})
    yield Sample("onward_connections_closed_total", collector.crowd.refused, {"which": "new"})
    for topic, count in collector.recorded.items():
        yield Sample("onward_events_recorded_total", count, {"topic": topic})
    for reason, count in collector.dropped.items():
        yield Sample("onward_events_dropped_total", count, {"reason": reason})
    lanes = collector.shipper.lanes
    yield Sample("onward_events_shipped_total", collector.shipper.shipped, {"journal": "own"})
    yield Sample("onward_events_shipped_total", collector.shipper.adoption.lines, {"journal": "adopted"})
    yield Sample("onward_events_unsafe_total", sum(lane.unsafe for lane in lanes))
    yield Sample("onward_journal_bytes", collector.space.taken)
    yield Sample("onward_journal_max_bytes", collector.space.most_bytes)
    yield Sample("onward_journal_unshipped_bytes", sum(lane.unshipped_bytes for lane in lanes))
    torn = sum(lane.shipment.torn_bytes for lane in lanes) + collector.shipper.adoption.torn_bytes
    yield Sample("onward_journal_torn_bytes_total", torn)
    gone = sum(lane.shipment.gone_bytes for lane in lanes) + collector.shipper.adoption.gone_bytes
    yield Sample("onward_journal_gone_bytes_total", gone)
    yield Sample("onward_journals_stranded", len(collector.shipper.adoption.stranded))
    yield Sample("onward_journals_unreadable", len(collector.shipper.adoption.unreadable))
    yield Sample("onward_redis_went_back_total", sum(lane.shipment.went_back for lane in lanes))
    yield Sample("onward_lanes", len(lanes))
    yield Sample("onward_lanes_failing", sum(lane.breaker.failing for lane in lanes))
    yield Sample("onward_links", len(collector.links))
    yield Sample("onward_links_database_up", float(collector.links.trouble is None))
    yield from samples_of_ourselves()
