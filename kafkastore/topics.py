"""The topics: what must be there before anything is published, created where that is allowed."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError

from collector.topics import BOTS
from kafkastore.checkpoint import CHECKPOINTS
from kafkastore.connection import PublishError, connection, start
from kafkastore.settings import KafkastoreSettings

_TOPIC_ALREADY_EXISTS: Final = 36
_TIMEOUT_MS: Final = 10_000
_DEFAULT_REPLICATION: Final = "default.replication.factor"

_CHECKPOINT_CONFIG: Final = {"cleanup.policy": "compact", "segment.ms": "3600000"}
"""Of each queue only the last checkpoint matters; a segment an hour keeps what a new owner reads small."""


@dataclass(frozen=True, slots=True)
class Topic:
    """How well a topic keeps what it was given."""

    replicas: int
    """Of the partition that has the fewest."""
    config: Mapping[str, str]
    """Empty where a broker does not tell."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is before we create anything."""

    brokers: int
    topics: Mapping[str, Topic]
    """Ours, without the prefix."""


def topics_of(settings: KafkastoreSettings) -> list[str]:
    """Name every topic we write to, without the prefix, except the checkpoints."""
    events = sorted({*settings.topics, BOTS})
    return [*events, *(f"{topic}.dead" for topic in events if topic != BOTS)]


async def ensure_topics(settings: KafkastoreSettings) -> str:
    """Create what is missing and give the cluster's id; raises PublishError that names what could not be created."""
    async with _admin(settings) as admin:
        await _create_missing(admin, settings)
        return (await admin.describe_cluster()).get("cluster_id") or ""


async def existing_topics(settings: KafkastoreSettings) -> set[str]:
    """Name the topics there are, with their prefixes; creates none. Raises PublishError."""
    async with _admin(settings) as admin:
        return set(await admin.list_topics())


async def partitions_by_topic(settings: KafkastoreSettings) -> dict[str, int]:
    """Tell how many partitions each topic has, with its prefix; creates none. Raises PublishError."""
    async with _admin(settings) as admin:
        return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def look_at_cluster(settings: KafkastoreSettings) -> Cluster:
    """Look at the topics there are and ask whether the others could be created; raises PublishError."""
    async with _admin(settings) as admin:
        names = [settings.kafka_prefix + topic for topic in (*topics_of(settings), CHECKPOINTS)]
        found = [topic for topic in await admin.describe_topics() if topic["topic"] in names]
        configs = await _configs(admin, ConfigResourceType.TOPIC, [topic["topic"] for topic in found])
        topics = {
            topic["topic"].removeprefix(settings.kafka_prefix): Topic(
                min((len(partition["replicas"]) for partition in topic["partitions"]), default=0),
                configs.get(topic["topic"], {}),
            )
            for topic in found
        }
        await _create_missing(admin, settings, only_ask=True)
        return Cluster(len((await admin.describe_cluster())["brokers"]), topics)


@asynccontextmanager
async def _admin(settings: KafkastoreSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=_TIMEOUT_MS)
    try:
        await start(admin, settings, _TIMEOUT_MS / 1000)
        yield admin
    except (KafkaError, OSError) as error:
        raise PublishError(f"Kafka does not answer: {error!r}") from error
    finally:
        await admin.close()


async def _create_missing(
    admin: AIOKafkaAdminClient, settings: KafkastoreSettings, *, only_ask: bool = False
) -> None:
    there = set(await admin.list_topics())
    replication = settings.kafka_replication or await _default_replication(admin)
    missing = [topic for topic in _wanted(settings, replication) if topic.name not in there]
    if missing:
        answer = await admin.create_topics(missing, timeout_ms=_TIMEOUT_MS, validate_only=only_ask)
        _raise_if_refused(answer.topic_errors)


async def _default_replication(admin: AIOKafkaAdminClient) -> int:
    """Ask a broker how many copies it makes by itself: aiokafka speaks no version in which that goes unsaid."""
    broker = str((await admin.describe_cluster())["controller_id"])
    config = await _configs(admin, ConfigResourceType.BROKER, [broker])
    return int(config.get(broker, {}).get(_DEFAULT_REPLICATION) or 1)


async def _configs(
    admin: AIOKafkaAdminClient, kind: ConfigResourceType, names: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Ask for the settings of topics or brokers, by their names; {} where nobody may."""
    if not names:
        return {}
    try:
        answers = await admin.describe_configs([ConfigResource(kind, name) for name in names])
    except KafkaConnectionError:
        return {}  # a demo broker that hangs up on a question it does not know
    resources: list[tuple[Any, ...]] = [one for answer in answers for one in answer.resources]
    return {
        resource: {name: value for name, value, *_ in entries} for _, _, _, resource, entries in resources
    }


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
