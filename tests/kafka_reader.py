"""What any reader of the topics sees, by another client than ours (librdkafka): committed records, in order.

Whatever a test reads, every event in it is as its published schema says.
"""

import json
from functools import lru_cache
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from jsonschema import Draft202012Validator

POLL_SECONDS = 1.0
SCHEMAS = {
    f"onward.{path.stem}".encode(): Draft202012Validator(json.loads(path.read_text("utf-8")))
    for path in (Path(__file__).parent.parent / "docs" / "schemas").glob("*.json")
}


def validate(record):
    """Hold an event's value to the schema of its type; what is no event in JSON is not looked at."""
    headers = dict(record.headers() or ())
    if headers.get("content-type") == b"application/json":
        _validate(headers["ce_type"], record.value())


@lru_cache(maxsize=20_000)  # tests read the same records again and again until what they wait for is there
def _validate(event_type, value):
    SCHEMAS[event_type].validate(json.loads(value))


def read_committed(bootstrap, topic):
    """Give every committed record of a topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reads-and-commits-nothing",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,  # an end is told after this: tests ask for many
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        records = []
        for partition in sorted(partitions):
            consumer.assign([TopicPartition(topic, partition, 0)])
            while True:
                message = consumer.poll(POLL_SECONDS)
                if message is None:
                    continue
                if message.error():
                    assert message.error().name() == "_PARTITION_EOF", message.error()
                    break
                validate(message)
                records.append(message)
        return records
    finally:
        consumer.close()


def values(bootstrap, topic):
    """Give the values of a topic's committed records."""
    return [record.value() for record in read_committed(bootstrap, topic)]
