"""The consumers' variables: their defaults and their meaning, in one place. Kafka's are the kafkastore's."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from process.settings import MetricsSettings, Settings


def _database_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    if scheme not in ("sqlite", "postgres", "postgresql") or not separator or not rest.strip("/"):
        raise ValueError("this is no sqlite:///path, postgres://… or postgresql://… URL")
    return value


def _clickhouse_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    whole = parts.path.strip("/").replace("_", "").isalnum() or parts.path in ("", "/")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not whole
        or parts.query
        or parts.fragment
    ):
        raise ValueError("this is no http://user:password@host:8123/database")
    return value


def _archive_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("", "file", "s3", "gs", "az") or not (parts.netloc or parts.path.strip("/")):
        raise ValueError("this is no folder, s3://bucket/…, gs://bucket/… or az://account/container/…")
    return value


class ConsumersSettings(Settings, MetricsSettings):
    """What `consumers run` reads from the environment."""

    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 (a server's usual default)
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        SecretStr("sqlite:///var/onward.db"),
        description="campaign links and totals: sqlite:///path, postgres://… or postgresql://…",
    )
    totals_visitor_days: int = Field(
        35,
        ge=1,
        le=3650,
        description="days after a link's last click of a day for which its visitors' ids are kept to count people",
    )
    attribution_wait_seconds: int = Field(
        3600,
        ge=0,
        le=7 * 86400,
        description="seconds that an install waits for a late click, and a click after its window for a late install",
    )
    clickhouse_url: Annotated[SecretStr, AfterValidator(_clickhouse_url)] | None = Field(
        None,
        description="ClickHouse's HTTP interface, for consumers run clickhouse: http(s)://user:password@host:port/database",
    )
    archive_url: Annotated[SecretStr, AfterValidator(_archive_url)] = Field(
        SecretStr("var/archive"),
        description="the archive: a folder, s3://bucket/…, gs://bucket/… or az://account/container/…",
    )
    archive_seconds: int = Field(
        300, ge=1, le=86_400, description="how long an event waits at most until its file is written"
    )
    archive_bytes: int = Field(
        16 * 1024 * 1024,
        ge=64 * 1024,
        le=256 * 1024 * 1024,
        description="size at which a file is written earlier; about four times as much is held in memory at most",
    )
