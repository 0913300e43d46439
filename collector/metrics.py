"""What a collector counts. Sums over `worker` are the whole collector."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from process.metrics import Family, Sample, samples_of_ourselves

if TYPE_CHECKING:
    from collector.app import Collector

FAMILIES: Final = (
    Family("onward_requests_total", "counter", "Requests answered, by route and status"),
    Family("onward_request_seconds", "histogram", "From a request's headers to its answer, by route"),
    Family("onward_events_recorded_total", "counter", "Events in the journal, by topic"),
    Family(
        "onward_events_dropped_total", "counter", "Events lost because the journal refused them, by reason"
    ),
    Family("onward_events_shipped_total", "counter", "Events that Redis took, by the journal they were in"),
    Family(
        "onward_journal_bytes", "gauge", "Bytes of events on disk, shipped ones that are still kept included"
    ),
    Family("onward_journal_max_bytes", "gauge", "Bytes that the journal may take"),
    Family("onward_journal_position_bytes", "gauge", "Bytes written to this process's journal"),
    Family("onward_journal_shipped_bytes", "gauge", "Bytes of them that Redis has"),
    Family("onward_links", "gauge", "Links in memory"),
    Family("onward_links_database_up", "gauge", "1 while the database of links answers"),
    Family("onward_redis_up", "gauge", "1 while this process's journal can be shipped"),
)


def samples_of(collector: "Collector") -> Iterator[Sample]:
    """Give everything a collector process counts."""
    for (route, status), count in collector.answered.items():
        yield Sample("onward_requests_total", count, {"route": route, "status": str(status)})
    for route, durations in collector.durations.items():
        yield from durations.samples("onward_request_seconds", {"route": route})
    for topic, count in collector.recorded.items():
        yield Sample("onward_events_recorded_total", count, {"topic": topic})
    for reason, count in collector.dropped.items():
        yield Sample("onward_events_dropped_total", count, {"reason": reason})
    journal, shipper = collector.journal, collector.shipper
    yield Sample("onward_events_shipped_total", shipper.shipped, {"journal": "own"})
    yield Sample("onward_events_shipped_total", shipper.adopted, {"journal": "adopted"})
    yield Sample("onward_journal_bytes", journal.size + journal.reserved)
    yield Sample("onward_journal_max_bytes", journal.max_bytes)
    yield Sample("onward_journal_position_bytes", journal.position)
    yield Sample("onward_journal_shipped_bytes", shipper.position)
    yield Sample("onward_links", len(collector.links))
    yield Sample("onward_links_database_up", float(collector.links.trouble is None))
    yield Sample("onward_redis_up", float(not shipper.away))
    yield from samples_of_ourselves()
