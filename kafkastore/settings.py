"""The kafkastore's variables: their defaults and their meaning, in one place."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from collector.event import CLICKS, ORPHANS, REFERRALS
from kafkastore.record import BOTS
from process.settings import RedisSettings, Settings

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,200}")


def _bootstrap(value: str) -> str:
    """`kafka://a:9092,kafka://b:9092` → `a:9092,b:9092`."""
    servers = [server.strip() for server in value.split(",") if server.strip()]
    if not servers or not all(re.fullmatch(r"kafka://[^/@\s]+:\d{1,5}/?", server) for server in servers):
        raise ValueError("this is no list of kafka://host:port")
    return ",".join(server.removeprefix("kafka://").rstrip("/") for server in servers)


def _topics(value: str) -> tuple[str, ...]:
    topics = tuple(topic.strip() for topic in value.split(",") if topic.strip())
    for topic in topics:
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"`{topic}` is no name of a topic")
        if topic in (CLICKS, REFERRALS, ORPHANS, BOTS) or topic.endswith(".dead"):
            raise ValueError(f"`{topic}` is a topic of ours that no app may write to")
    return topics


_Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
_Topics = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: _topics(value) if isinstance(value, str) else value)
]


class KafkastoreSettings(Settings, RedisSettings):
    """What `kafkastore run` reads from the environment."""

    kafka_url: Annotated[str, AfterValidator(_bootstrap)] = Field(
        "kafka://127.0.0.1:9092",
        description="brokers, as kafka://host:port,kafka://host:port",
        validate_default=True,
    )
    kafka_prefix: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9._-]{0,40}$",
        description="goes before every topic, group and transactional id",
    )
    kafka_partitions: int = Field(6, ge=1, le=10_000, description="partitions of a topic that we create")
    kafka_replication: int | None = Field(
        None, ge=1, le=32, description="copies of a topic that we create; unset: the broker's default"
    )
    delivery: Annotated[Literal["exactly_once", "at_least_once"], _Lower] = Field(
        "exactly_once", description="exactly_once, or at_least_once for brokers without transactions"
    )
    bots: Annotated[Literal["separate", "flag", "drop"], _Lower] = Field(
        "separate", description="bots' clicks and referrals: separate (topic bots), flag or drop"
    )
    ip_privacy: Annotated[Literal["mask", "full", "none"], _Lower] = Field(
        "mask", description="addresses in Kafka: mask, full or none"
    )
    gpc: Annotated[Literal["honor", "ignore"], _Lower] = Field(
        "honor", description="Global Privacy Control: honor keeps nothing that identifies the visitor"
    )
    dnt: Annotated[Literal["honor", "ignore"], _Lower] = Field(
        "ignore", description="Do Not Track: honor or ignore"
    )
    inapp_topics: _Topics = Field(("inapp",), description="topics an in-app event may name")
    geoip_db: Path | None = Field(
        None, description="a GeoIP2, GeoLite2 or DB-IP file; unset: the shipped country table"
    )

    @property
    def topics(self) -> frozenset[str]:
        """The topics an event line may name."""
        return frozenset({CLICKS, REFERRALS, ORPHANS, *self.inapp_topics})
