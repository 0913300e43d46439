"""The topics: what must be there before anything is published, created where that is allowed."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError

from kafkastore.publisher import CHECKPOINTS, PublishError
from kafkastore.record import BOTS
from kafkastore.settings import KafkastoreSettings

_TOPIC_ALREADY_EXISTS: Final = 36
_TIMEOUT_MS: Final = 10_000
_DEFAULT_REPLICATION: Final = "default.replication.factor"

_CHECKPOINT_CONFIG: Final = {"cleanup.policy": "compact", "segment.ms": "3600000"}
"""Of each queue only the last checkpoint matters; a segment an hour keeps what a new owner reads small."""


def topics_of(settings: KafkastoreSettings) -> list[str]:
    """Name every topic we write to, without the prefix, except the checkpoints."""
    events = sorted({*settings.topics, BOTS})
    return [*events, *(f"{topic}.dead" for topic in events if topic != BOTS)]


async def ensure_topics(settings: KafkastoreSettings) -> None:
    """Create what is missing; raises PublishError that names what could not be created."""
    async with _admin(settings) as admin:
        there = set(await admin.list_topics())
        replication = settings.kafka_replication or await _default_replication(admin)
        missing = [topic for topic in _wanted(settings, replication) if topic.name not in there]
        if missing:
            answer = await admin.create_topics(missing, timeout_ms=_TIMEOUT_MS)
            _raise_if_refused(answer.topic_errors)


async def existing_topics(settings: KafkastoreSettings) -> set[str]:
    """Name the topics there are, with their prefixes; creates none. Raises PublishError."""
    async with _admin(settings) as admin:
        return set(await admin.list_topics())


@asynccontextmanager
async def _admin(settings: KafkastoreSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_url, request_timeout_ms=_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise PublishError(f"Kafka does not answer: {error!r}") from error
    finally:
        await admin.close()


async def _default_replication(admin: AIOKafkaAdminClient) -> int:
    """Ask a broker how many copies it makes by itself: aiokafka speaks no version in which that goes unsaid."""
    broker = str((await admin.describe_cluster())["controller_id"])
    question = ConfigResource(ConfigResourceType.BROKER, broker, {_DEFAULT_REPLICATION: None})
    try:
        answers = await admin.describe_configs([question])
    except KafkaConnectionError:
        return 1  # a demo broker that hangs up on a question it does not know
    for answer in answers:
        for _, _, _, _, entries in answer.resources:
            for name, value, *_ in entries:
                if name == _DEFAULT_REPLICATION and value:
                    return int(value)
    return 1


def _wanted(settings: KafkastoreSettings, replication: int) -> list[NewTopic]:
    wanted = [
        NewTopic(settings.kafka_prefix + topic, settings.kafka_partitions, replication)
        for topic in topics_of(settings)
    ]
    checkpoints = NewTopic(
        settings.kafka_prefix + CHECKPOINTS,
        settings.kafka_partitions,
        replication,
        topic_configs=_CHECKPOINT_CONFIG,
    )
    return [*wanted, checkpoints]


def _raise_if_refused(topic_errors: Iterable[tuple[str, int, str | None]]) -> None:
    refused = [
        f"{topic} ({message or code})"
        for topic, code, message in topic_errors
        if code not in (0, _TOPIC_ALREADY_EXISTS)
    ]
    if refused:
        raise PublishError(f"topics could not be created, create them by hand: {', '.join(refused)}")
