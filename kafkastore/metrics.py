"""What a kafkastore counts."""

import time
from collections.abc import Iterator
from typing import Final

from collector.persistence import weaknesses
from geoip.database import Database
from kafkastore.pipeline import Pipeline
from process.metrics import Family, Sample, samples_of_ourselves

FAMILIES: Final = (
    Family(
        "onward_records_published_total", "counter", "Records that are in Kafka, by topic; dead letters too"
    ),
    Family("onward_batches_total", "counter", "Batches that are in Kafka"),
    Family("onward_batch_seconds", "histogram", "From a claim to the forgetting of its batch"),
    Family("onward_bots_dropped_total", "counter", "Bots' events left out under BOTS=drop"),
    Family(
        "onward_lag_seconds", "gauge", "From the newest event's click to its publishing, in the last batch"
    ),
    Family(
        "onward_queue_lines", "gauge", "Lines that wait, the batch in flight included, by Redis and queue"
    ),
    Family("onward_queue_owned", "gauge", "1 for the queues that are this kafkastore's"),
    Family(
        "onward_queue_troubled", "gauge", "1 for the queues of ours that wait for something that is wrong"
    ),
    Family(
        "onward_redis_weaknesses",
        "gauge",
        "What `kafkastore check` finds about what a Redis keeps, for the queues that are ours; 0 is well",
    ),
    Family("onward_redis_went_back_total", "counter", "Times a Redis had forgotten a batch that is in Kafka"),
    Family("onward_geoip_age_seconds", "gauge", "Since the table of places was built"),
)


def samples_of(pipeline: Pipeline, places: Database) -> Iterator[Sample]:
    """Give everything a kafkastore counts."""
    for topic, count in pipeline.published.items():
        yield Sample("onward_records_published_total", count, {"topic": topic})
    yield Sample("onward_batches_total", pipeline.batches)
    yield from pipeline.durations.samples("onward_batch_seconds", {})
    yield Sample("onward_bots_dropped_total", pipeline.dropped_bots)
    yield Sample("onward_lag_seconds", pipeline.lag_seconds)
    for state in pipeline.states:
        labels = {"redis": str(state.redis), "queue": state.queue}
        if state.lines is not None:
            yield Sample("onward_queue_lines", state.lines, labels)
        yield Sample("onward_queue_owned", float(state.owned), labels)
        yield Sample("onward_queue_troubled", float(state.why is not None), labels)
        if state.owned and state.persistence is not None:
            found = len(list(weaknesses(state.persistence, log_wanted_by=None)))
            yield Sample("onward_redis_weaknesses", found, labels)
    yield Sample("onward_redis_went_back_total", pipeline.redis_went_back)
    yield Sample("onward_geoip_age_seconds", time.time() - places.built.timestamp())
    yield from samples_of_ourselves()
