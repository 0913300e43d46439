"""What `kafkastore check` finds: one sentence a thing, with the cure."""

from collections.abc import Iterator
from typing import Final

from redis.exceptions import RedisError

from collector.persistence import persistence_of, weaknesses
from collector.queue import open_redis
from geoip.database import DatabaseError, open_database
from kafkastore.checkpoint import CHECKPOINTS
from kafkastore.connection import PublishError
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import Cluster, Topic, look_at_cluster
from process.finding import Finding

_REPLICAS: Final = 3
_IN_SYNC: Final = 2

_RETENTION_DAYS: Final = 7
"""Kafka's own default."""

_DAY_MS: Final = 24 * 60 * 60 * 1000


async def findings(settings: KafkastoreSettings) -> list[Finding]:
    """Look at everything the kafkastore needs."""
    found = []
    for number, url in enumerate(settings.redis_urls, 1):
        found += await _redis_findings(settings, f"Redis {number}", url)
    try:
        cluster = await look_at_cluster(settings)
    except PublishError as error:
        found.append(Finding(f"{error}. Start Kafka, or mend KAFKA_URL."))
    else:
        found += topic_findings(cluster, exactly_once=settings.delivery == "exactly_once")
    try:
        open_database(settings.geoip_db)
    except DatabaseError as error:
        found.append(Finding(str(error)))
    return found


async def _redis_findings(settings: KafkastoreSettings, name: str, url: str) -> list[Finding]:
    redis = open_redis(url, tls_insecure=settings.redis_tls_insecure)
    try:
        persistence = await persistence_of(redis)
    except (RedisError, OSError) as error:
        return [Finding(f"{name} does not answer ({error}): start it, or mend REDIS_URL.")]
    finally:
        await redis.aclose()
    log_wanted_by = "CLAIM_DURABLE=1" if settings.claim_durable else None
    kept = persistence.promise(claim_durable=settings.claim_durable)
    return [
        *(
            Finding(f"{name} {weakness.text}", fatal=weakness.fatal)
            for weakness in weaknesses(persistence, log_wanted_by=log_wanted_by)
        ),
        Finding(f"{name}: should it go back in time, {kept}.", fatal=False),
    ]


def topic_findings(cluster: Cluster, *, exactly_once: bool) -> Iterator[Finding]:
    """Say of each topic what it would lose with a broker; where there is only one broker, that is no failure."""
    if exactly_once and cluster.topics and CHECKPOINTS not in cluster.topics:
        yield Finding(
            f"The topic {CHECKPOINTS} is missing while others are there. If it was deleted, a batch in flight may "
            "double once; kafkastore run creates it again."
        )
    for name, topic in cluster.topics.items():
        if faults := _faults(name, topic):
            yield Finding(
                f"The topic {name} has {', '.join(faults)}: change it with Kafka's own tools.",
                fatal=cluster.brokers > 1,
            )
        retention_ms = int(topic.config.get("retention.ms", "-1"))
        if name != CHECKPOINTS and 0 <= retention_ms < _RETENTION_DAYS * _DAY_MS:
            yield Finding(
                f"The topic {name} keeps events for {retention_ms / _DAY_MS:.3g} days from the click on: one that "
                "comes later than that, out of an old journal or redriven, is removed at once. "
                f"A retention.ms of {_RETENTION_DAYS} days or more leaves time.",
                fatal=False,
            )


def _faults(name: str, topic: Topic) -> list[str]:
    faults = []
    if topic.replicas < _REPLICAS:
        faults.append(f"replication {topic.replicas} (wanted: {_REPLICAS} or more)")
    # A broker may keep its settings to itself.
    in_sync = topic.config.get("min.insync.replicas")
    if in_sync is not None and int(in_sync) < _IN_SYNC:
        faults.append(f"min.insync.replicas {in_sync} (wanted: {_IN_SYNC} or more)")
    if topic.config.get("unclean.leader.election.enable", "false") != "false":
        faults.append("unclean.leader.election.enable true (wanted: false)")
    policy = topic.config.get("cleanup.policy", "compact")
    if name == CHECKPOINTS and policy != "compact":
        faults.append(f"cleanup.policy {policy} (wanted: compact)")
    return faults
