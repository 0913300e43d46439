"""Which Kafka this is, and whether it has the topics."""

from collections.abc import Sequence
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient

from kafkastore.connection import connection, start
from kafkastore.settings import KafkastoreSettings

_SECONDS: Final = 10.0


async def cluster_with(settings: KafkastoreSettings, topics: Sequence[str]) -> tuple[str, list[str]]:
    """Give the cluster's id and those of `topics` that it lacks; creates none. Raises PublishError, KafkaError."""
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=int(_SECONDS * 1000))
    try:
        await start(admin, settings, _SECONDS)
        there = set(await admin.list_topics())
        cluster_id = (await admin.describe_cluster())["cluster_id"]
        return cluster_id or "unnamed", [
            topic for topic in topics if topic not in there
        ]  # demo brokers have none
    finally:
        await admin.close()
