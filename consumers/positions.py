"""Positions in SQL: read at each assignment, moved by compare-and-set in the commit of the rows they stand for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import TopicPartition
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.insertion import insert
from consumers.schema import DEAD_LETTERS, POSITIONS
from consumers.sink import Batch, MovedError

_MOST_REASON: Final = 500
"""Characters of a reason."""


async def positions(
    connection: AsyncConnection, consumer: str, cluster_id: str, beginnings: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Give a consumer's positions; a partition never read gets its beginning for one."""
    whose = {"consumer": consumer, "cluster_id": cluster_id}
    rows = [
        {**whose, "topic": partition.topic, "partition": partition.partition, "next_offset": beginning}
        for partition, beginning in sorted(beginnings.items())
    ]
    if rows:
        first, parameters = insert(POSITIONS, rows, connection.dialect)
        await connection.execute(first.on_conflict_do_nothing(), parameters)
    mine = select(POSITIONS.c.topic, POSITIONS.c.partition, POSITIONS.c.next_offset).filter_by(**whose)
    found = {
        TopicPartition(topic, partition): next_offset
        for topic, partition, next_offset in await connection.execute(mine)
    }
    return {partition: found[partition] for partition in beginnings}


async def move(connection: AsyncConnection, consumer: str, batch: Batch) -> None:
    """Move the positions of a batch's partitions over it; raises MovedError where one is not at its beginning."""
    for span in sorted(batch.spans, key=lambda span: span.partition):
        moved = (
            update(POSITIONS)
            .filter_by(
                consumer=consumer,
                cluster_id=batch.cluster_id,
                topic=span.partition.topic,
                partition=span.partition.partition,
                next_offset=span.begin,
            )
            .values(next_offset=span.end)
        )
        if (await connection.execute(moved)).rowcount != 1:
            raise MovedError(f"{span.partition.topic}/{span.partition.partition} is not at {span.begin}")


async def bury(
    connection: AsyncConnection, consumer: str, cluster_id: str, dead: list[tuple[Any, str]]
) -> None:
    """Keep records that are no events, whole, with the reason."""
    rows = [
        {
            "consumer": consumer,
            "cluster_id": cluster_id,
            "topic": record.topic,
            "partition": record.partition,
            "record_offset": record.offset,
            "reason": reason[:_MOST_REASON].replace("\0", "\ufffd"),
            "value": record.value,
            "died_at": datetime.now(UTC),
        }
        for record, reason in dead
    ]
    if rows:
        await connection.execute(DEAD_LETTERS.insert(), rows)
