"""The kafkastore's variables: their defaults and their meaning, in one place."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collector.event import CLICKS, ORPHANS, REFERRALS
from collector.topics import InAppSettings
from kafkastore.record import ValueFormat
from process.settings import MetricsSettings, RedisSettings, Settings

_SERVER = re.compile(r"(?P<scheme>kafka|kafka\+ssl)://(?P<broker>[^/@,\s]+:\d{1,5})/?")


class _TlsBrokers(str):
    """`host:port,host:port` that speak TLS."""

    __slots__ = ()


def _brokers(value: str) -> str:
    """`kafka://a:9092,kafka://b:9092` → `a:9092,b:9092`."""
    servers = [_SERVER.fullmatch(server.strip()) for server in value.split(",") if server.strip()]
    found = [server for server in servers if server]
    if not found or len(found) < len(servers):
        raise ValueError("this is no list of kafka://host:port")
    schemes = {server["scheme"] for server in found}
    if len(schemes) > 1:
        raise ValueError("this mixes kafka:// and kafka+ssl://")
    brokers = ",".join(server["broker"] for server in found)
    return brokers if schemes == {"kafka"} else _TlsBrokers(brokers)


_Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
_Upper = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)


class KafkastoreSettings(Settings, MetricsSettings, RedisSettings, InAppSettings):
    """What `kafkastore run` reads from the environment."""

    kafka_url: Annotated[str, AfterValidator(_brokers)] = Field(
        "kafka://127.0.0.1:9092",
        description="brokers, as kafka://host:port,kafka://host:port, or with TLS kafka+ssl://host:port,…",
        validate_default=True,
    )
    kafka_trusted_cert: SecretStr | None = Field(
        None,
        description="whose signature the brokers' certificates have: PEM text or a path; unset: this machine's list",
    )
    kafka_client_cert: SecretStr | None = Field(
        None, description="our certificate for kafka+ssl://, where brokers want one: PEM text or a path"
    )
    kafka_client_cert_key: SecretStr | None = Field(
        None, description="the key of KAFKA_CLIENT_CERT: PEM text or a path"
    )
    kafka_ssl_check_hostname: bool = Field(
        default=True,
        description="0 checks who signed a broker's certificate, not its name (Heroku needs that)",
    )
    kafka_sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, _Upper] = (
        Field(
            None,
            description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, where brokers want a name and a password",
        )
    )
    kafka_sasl_username: str | None = Field(None, description="the name, with KAFKA_SASL_MECHANISM")
    kafka_sasl_password: SecretStr | None = Field(None, description="the password, with KAFKA_SASL_MECHANISM")
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
    claim_durable: bool = Field(
        default=False,
        description="1 publishes a batch only when Redis has its claim on disk: nothing doubles if Redis goes back",
    )
    stop_limit: int = Field(
        50,
        ge=0,
        le=100,
        description="percent of the last 1000 lines that may be dead before all is stopped; 100: none",
    )
    value_format: Annotated[ValueFormat, _Lower] = Field(
        "json", description="json, or adtekio: the text of the original pipeline"
    )
    bots: Annotated[Literal["separate", "flag", "drop"], _Lower] = Field(
        "separate",
        description="bots' clicks and referrals: separate (topic bots), flag or drop; with adtekio flag unless set",
    )
    ip_privacy: Annotated[Literal["mask", "full", "none"], _Lower] = Field(
        "mask", description="addresses in Kafka: mask, full or none; with adtekio full unless set"
    )
    gpc: Annotated[Literal["honor", "ignore"], _Lower] = Field(
        "honor", description="Global Privacy Control: honor keeps nothing that identifies the visitor"
    )
    dnt: Annotated[Literal["honor", "ignore"], _Lower] = Field(
        "ignore", description="Do Not Track: honor or ignore"
    )
    visitor_secret: SecretStr | None = Field(
        None,
        description="makes visitor ids keyed hashes: a text, or daily (a random key a day, forgotten after 48 h)",
    )
    geoip_db: Path | None = Field(
        None, description="a GeoIP2, GeoLite2 or DB-IP file; unset: the shipped country table"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_original(cls, given: Any) -> Any:
        """Readers of the original's text know bots among people and whole addresses."""
        if isinstance(given, dict) and str(given.get("value_format", "")).lower() == "adtekio":
            return {"bots": "flag", "ip_privacy": "full", **given}
        return given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse half of what belongs together, and secrets that would not be used."""
        if (self.kafka_client_cert is None) != (self.kafka_client_cert_key is None):
            raise ValueError(
                "KAFKA_CLIENT_CERT and KAFKA_CLIENT_CERT_KEY belong together: set both or neither."
            )
        if not self.kafka_tls and (self.kafka_client_cert or self.kafka_trusted_cert):
            raise ValueError(
                "KAFKA_URL is without TLS although certificates are set: write kafka+ssl://, or unset them."
            )
        sasl = (self.kafka_sasl_mechanism, self.kafka_sasl_username, self.kafka_sasl_password)
        if any(sasl) and not all(sasl):
            raise ValueError(
                "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD belong together: "
                "set all three or none."
            )
        return self

    @property
    def kafka_tls(self) -> bool:
        """Whether the brokers speak TLS."""
        return isinstance(self.kafka_url, _TlsBrokers)

    @property
    def visitor_keys_change_daily(self) -> bool:
        """Whether visitor ids get a random key a day."""
        return self.visitor_secret is not None and self.visitor_secret.get_secret_value() == "daily"

    @property
    def topics(self) -> frozenset[str]:
        """The topics an event line may name."""
        return frozenset({CLICKS, REFERRALS, ORPHANS, *self.inapp_topics})
