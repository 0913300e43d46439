"""The collector's variables: their defaults and their meaning, in one place."""

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collector.client_address import client_address
from collector.referer import RefererPrivacy
from process.settings import RedisSettings, Settings


def _proxies(value: str) -> str:
    client_address(value)
    return value


def _redirect_target(value: str) -> str:
    if not value.startswith(("http://", "https://")) or any(
        ord(character) <= ord(" ") for character in value
    ):
        raise ValueError("this is no http:// or https:// URL")
    return value


def _json(value: str) -> str:
    json.loads(value)
    return value


_Lower = BeforeValidator(str.lower)
_Url = Annotated[str, AfterValidator(_redirect_target)]


class CollectorSettings(Settings, RedisSettings):
    """What `collector serve` reads from the environment."""

    port: int = Field(
        8080, ge=0, le=65535, description="the TCP port to listen on, 0 to 65535 (0: any free one)"
    )
    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 (a public endpoint)
    web_concurrency: int = Field(1, ge=1, le=256, description="processes that share PORT, 1 to 256")
    database_url: SecretStr = Field(
        SecretStr("sqlite:///var/onward.db"),
        description="campaign links: sqlite:///path, postgres://… or postgresql://…",
    )
    journal_dir: Path = Field(Path("var/journal"), description="a folder on a local disk")
    journal_max_bytes: int = Field(
        1024**3, ge=1024**2, description="bytes of events that may wait on disk for Redis, at least 1048576"
    )
    journal_keep_seconds: int = Field(
        600,
        ge=0,
        description="seconds that shipped events stay in the journal, for a Redis that goes back in time",
    )
    trusted_proxies: Annotated[str, AfterValidator(_proxies)] = Field(
        "", description="networks of proxies in front (10.0.0.0/8,::1/128), or how many there are (1)"
    )
    client_ip_header: str = Field(
        "X-Forwarded-For",
        pattern=r"^[A-Za-z0-9-]+$",
        description="the header in which trusted proxies pass on the address",
    )
    referer: Annotated[RefererPrivacy, _Lower] = Field("host", description="host, full or none")
    not_found_url: _Url | None = Field(
        None, description="where a link without a target for this device sends the visitor"
    )
    error_page_url: _Url | None = Field(
        None, description="where an unknown or expired link sends the visitor"
    )

    app_links_apple: Annotated[str, AfterValidator(_json)] = Field(
        '{"applinks":{"apps":[],"details":[]}}', description="JSON of /.well-known/apple-app-site-association"
    )
    app_links_android: Annotated[str, AfterValidator(_json)] = Field(
        "[]", description="JSON of /.well-known/assetlinks.json"
    )

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.journal_max_bytes // self.web_concurrency < 1024**2:
            raise ValueError(
                "JOURNAL_MAX_BYTES: each of WEB_CONCURRENCY processes needs at least 1048576 of them."
            )
        return self
