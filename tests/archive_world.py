"""Topics full of whole records, and what an archive on a folder has of them, read by plain gzip and json."""

import base64
import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from consumers_world import PARTITIONS, Topics, event, made_up
from kafka_reader import read_committed

from kafkastore.piece import partition_of
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import topics_of

TOPICS = tuple(topics_of(KafkastoreSettings()))


class Records(Topics):
    """All our topics, and records with keys, headers and times as the kafkastore puts them."""

    def __init__(self, bootstrap, prefix, topics=TOPICS):
        super().__init__(bootstrap, prefix, topics)
        self.bootstrap = bootstrap
        self.topics = topics

    def put_events(self, numbers, rng, **fields):
        """Put made-up events there, in one transaction; gives their (topic, value)s."""
        events = [event(number, rng, **fields) for number in numbers]
        self.put_records(whole(topic, value) for topic, value in events)
        return events

    def put_records(self, records):
        """Put (topic, key, value, headers, timestamp)s there, in one transaction."""
        self._producer.begin_transaction()
        for topic, key, value, headers, timestamp in records:
            where = partition_of(key, PARTITIONS) if key is not None else 0
            self._producer.produce(
                self.prefix + topic, value, key, headers=headers, timestamp=timestamp, partition=where
            )
            self._producer.poll(0)
        self._producer.commit_transaction(20)

    def in_kafka(self):
        """Count every committed record, as (topic, partition, offset, timestamp, key, value, headers)."""
        return Counter(
            (
                record.topic(),
                record.partition(),
                record.offset(),
                record.timestamp()[1],
                record.key(),
                record.value(),
                tuple(record.headers() or ()),
            )
            for topic in self.topics
            for record in read_committed(self.bootstrap, self.prefix + topic)
        )

    def without_places(self):
        """Count committed records without their offsets."""
        return Counter((topic, part, *rest) for topic, part, _, *rest in self.in_kafka().elements())


def whole(topic, value):
    """Give a record as the kafkastore puts an event there."""
    at = datetime.fromisoformat(value["clicked_at"])
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", value["event_id"].encode()),
        ("ce_source", f"/onward/{topic}".encode()),
        ("ce_type", f"onward.{value['event_type']}".encode()),
        ("ce_time", value["clicked_at"].encode()),
        ("content-type", b"application/json"),
    ]
    key = (value["visitor_id"] or value["event_id"]).encode()
    return topic, key, made_up(value), headers, milliseconds(at)


def milliseconds(at):
    return round(at.replace(tzinfo=UTC).timestamp() * 1000)


def files_of(directory):
    """Give the files that hold records."""
    return sorted(Path(directory).glob("[!_]*/*/*/*.jsonl.gz"))


def in_archive(directory):
    """Count what the files of an archive hold, in the shape of `in_kafka`; each file must say what it holds."""
    found = Counter()
    for path in files_of(directory):
        topic, day, partition, name = path.relative_to(directory).parts
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        first, last = map(int, name.partition(".")[0].split("-"))
        assert (lines[0]["offset"], lines[-1]["offset"]) == (first, last), path
        for raw, line in zip(gzip.decompress(path.read_bytes()).splitlines(), lines, strict=True):
            assert (line["topic"], str(line["partition"])) == (topic, partition), path
            assert datetime.fromtimestamp(line["timestamp"] / 1000, UTC).strftime("%Y-%m-%d") == day, path
            found[record_of(raw, line)] += 1
    return found


def record_of(raw, line):
    value = line["value"]
    if isinstance(value, dict):  # as it stands there
        text = raw.decode()
        begin = text.index('"value":') + len('"value":')
        _, end = json.JSONDecoder().raw_decode(text, begin)
        value = text[begin:end]
    headers = tuple((name, unpacked(text, *encoded or (None,))) for name, text, *encoded in line["headers"])
    return (
        line["topic"],
        line["partition"],
        line["offset"],
        line["timestamp"],
        unpacked(line.get("key"), line.get("key_base64")),
        unpacked(value, line.get("value_base64")),
        headers,
    )


def unpacked(text, encoded):
    if encoded is not None:
        return base64.b64decode(encoded)
    return None if text is None else text.encode()
