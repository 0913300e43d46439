"""A member of attribution that can be killed often: each line of stdin forks one, and kills it after so many seconds.

Started by tests with DATABASE_URL, KAFKA_URL, KAFKA_PREFIX and a file of values by topic and partition. It hands them
to the sink as the loop does, and needs no group for it: to join one again after a kill takes seconds.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time

import aiosqlite  # noqa: F401 - what each life would import again
import asyncpg  # noqa: F401
from aiokafka import TopicPartition
from alembic import command  # noqa: F401
from sqlalchemy.dialects import postgresql, sqlite  # noqa: F401

from consumers import outbox_publisher
from consumers.attribution import Attribution
from consumers.progress import Progress
from consumers.sink import Batch, Span
from kafkastore.settings import KafkastoreSettings
from process.settings import read_settings

MOST_RECORDS = 40
"""In a batch, of a partition: small, so that there are many commits to be killed in."""

MOST_PUBLISHED = 12
"""In a transaction: the same."""


def main():
    database_url, path = os.environ["DATABASE_URL"], sys.argv[1]
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 (one line)
        values = [(TopicPartition(topic, number), rows) for topic, number, rows in json.load(file)]
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(member(database_url, values))
            os._exit(0)
        ends_at = time.monotonic() + float(line)
        done, status = os.waitpid(pid, os.WNOHANG)
        while not done and time.monotonic() < ends_at:
            time.sleep(0.002)
            done, status = os.waitpid(pid, os.WNOHANG)
        if not done:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


async def member(database_url, values):
    kafka = read_settings(KafkastoreSettings, os.environ)
    outbox_publisher.MOST_RECORDS = MOST_PUBLISHED
    sink = Attribution(database_url, kafka, Progress("attribution"), wait_seconds=3600)
    beginnings = dict.fromkeys((kafka.kafka_prefix + name, number) for (name, number), _ in values)
    partitions = {TopicPartition(*where): 0 for where in beginnings}
    position = dict(await sink.positions("cluster", partitions))
    while batch := next_batch(kafka.kafka_prefix, values, position):
        await sink.write(batch)
        position |= {span.partition: span.end for span in batch.spans}
    await sink.drain()
    await sink.close()


def next_batch(prefix, values, position):
    spans = []
    for (topic, number), rows in values:
        partition = TopicPartition(prefix + topic, number)
        begin = position[partition]
        most = random.randrange(MOST_RECORDS)  # noqa: S311 (batches of any size)
        end = min(begin + most, len(rows))
        records = [
            Record(partition, begin + index, row.encode()) for index, row in enumerate(rows[begin:end])
        ]
        if begin < len(rows):
            spans.append(Span(partition, begin, end, records))
    return Batch("cluster", spans) if spans else None


class Record:
    """What the sink looks at of aiokafka's."""

    headers = ()
    key = b"key"

    def __init__(self, partition, offset, value):
        self.topic, self.partition = partition
        self.offset = offset
        self.value = value


if __name__ == "__main__":
    main()
