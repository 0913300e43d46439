"""What any reader of the topics sees, by another client than ours (librdkafka): committed records, in order.

Whatever a test reads, every event in it is as its published schema says.
"""

from confluent_kafka import Consumer, TopicPartition
from published import published_record

POLL_SECONDS = 1.0


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
                published_record(message)
                records.append(message)
        return records
    finally:
        consumer.close()


def values(bootstrap, topic):
    """Give the values of a topic's committed records."""
    return [record.value() for record in read_committed(bootstrap, topic)]
