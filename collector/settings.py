"""The collector's variables: their defaults and their meaning, in one place."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collector.client_address import client_address
from collector.lane import Durability
from collector.referer import RefererPrivacy
from collector.referral import host_name
from collector.topics import InAppSettings
from process.settings import MetricsSettings, RedisSettings, Settings


def _proxies(value: str) -> str:
    client_address(value)
    return value


def _redirect_target(value: str) -> str:
    if not value.startswith(("http://", "https://")) or any(
        ord(character) <= ord(" ") for character in value
    ):
        raise ValueError("this is no http:// or https:// URL")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    if scheme not in ("sqlite", "postgres", "postgresql") or not separator or not rest.strip("/"):
        raise ValueError("this is no sqlite:///path, postgres://… or postgresql://… URL")
    return value


def _json(value: str) -> str:
    json.loads(value)
    return value


def _origins(value: str) -> tuple[str, ...]:
    origins = tuple(origin.strip().lower() for origin in value.split(",") if origin.strip())
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise ValueError(
                f"`{origin}` is no origin: a scheme, a host, perhaps a port, no slash at the end"
            )
    return origins


_Origins = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: _origins(value) if isinstance(value, str) else value)
]


def _origin(value: str) -> str:
    """An upstream is a scheme and a host: paths of ours are paths of its."""
    parts = urlsplit(value)
    whole = parts.path in ("", "/") and not parts.query and not parts.fragment and parts.username is None
    if parts.scheme not in ("http", "https") or not parts.hostname or not whole or parts.port == 0:
        raise ValueError("this is no http://host:port or https://host")
    return f"{parts.scheme}://{parts.netloc}"


def _hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    hosts = {entry: host_name(entry.strip()) for entry in value.split(",") if entry.strip()}
    for entry, host in hosts.items():
        if host is None:
            raise ValueError(f"`{entry.strip()}` is no host name")
    return frozenset(hosts.values())


_Lower = BeforeValidator(str.lower)
_Url = Annotated[str, AfterValidator(_redirect_target)]


class CollectorSettings(Settings, MetricsSettings, RedisSettings, InAppSettings):
    """What `collector serve` reads from the environment."""

    port: int = Field(
        8080, ge=0, le=65535, description="the TCP port to listen on, 0 to 65535 (0: any free one)"
    )
    web_concurrency: int = Field(1, ge=1, le=256, description="processes that share PORT, 1 to 256")
    max_connections: int = Field(
        5_000,
        ge=16,
        le=1_000_000,
        description="visitors connected to a process at once, 16 to 1000000; beyond it the longest silent are closed "
        "(6 to 8 KB each, with TLS 30 to 50)",
    )
    metrics_public: bool = Field(default=False, description="1 answers /metrics on PORT too")
    tls_cert: SecretStr | None = Field(
        None,
        description="the certificate, the chain after it: PEM text or a path; with it PORT speaks TLS only",
    )
    tls_key: SecretStr | None = Field(None, description="the key of TLS_CERT: PEM text or a path")
    tls_dir: Path | None = Field(
        None,
        description="a folder with <host>/fullchain.pem and privkey.pem; TLS_CERT is for all other names",
    )
    http_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="with TLS, a port that redirects to HTTPS and answers ACME, 1 to 65535",
    )
    acme_dir: Path | None = Field(
        None, description="the folder an ACME client (certbot --webroot) puts its challenges in"
    )
    hsts_seconds: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="with TLS, for how long browsers shall use HTTPS only (Strict-Transport-Security); 0: not told",
    )
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        SecretStr("sqlite:///var/onward.db"),
        description="campaign links: sqlite:///path, postgres://… or postgresql://…",
    )
    journal_dir: Path = Field(Path("var/journal"), description="a folder on a local disk")
    durability: Annotated[Durability, _Lower] = Field(
        "journal",
        description="what has an event before the visitor is answered: journal (the system), "
        "fsync (its disk too), redis (Redis too, waiting 50 ms at most)",
    )
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
    frontend_url: Annotated[str, AfterValidator(_origin)] | None = Field(
        None, description="the web site that is shown where no link is (http://127.0.0.1:8081); unset: none"
    )
    site_hosts: Annotated[frozenset[str], BeforeValidator(_hosts)] = Field(
        frozenset(), description="hosts that are yours and send no referrals (example.com,www.example.com)"
    )
    referrals_direct: bool = Field(
        default=False, description="1 records page views that came from nowhere too (a typed address, an app)"
    )
    api_secret_key: SecretStr | None = Field(
        None, description="the secret that signs calls of the sync API; unset: the API is closed"
    )
    api_open: bool = Field(
        default=False, description="1 opens the sync API to everybody as long as API_SECRET_KEY is unset"
    )
    proxy_private: bool = Field(
        default=False, description="1 lets links in proxy mode fetch from private and loopback addresses"
    )
    cors_origins: _Origins = Field(
        (), description="origins whose pages may send in-app events (https://www.example.com,…), or *"
    )
    app_links_apple: Annotated[str, AfterValidator(_json)] = Field(
        '{"applinks":{"apps":[],"details":[]}}', description="JSON of /.well-known/apple-app-site-association"
    )
    app_links_android: Annotated[str, AfterValidator(_json)] = Field(
        "[]", description="JSON of /.well-known/assetlinks.json"
    )

    @property
    def tls(self) -> bool:
        """Whether PORT speaks TLS."""
        return self.tls_cert is not None or self.tls_dir is not None

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS_CERT and TLS_KEY belong together: set both of them, or none.")
        if not self.tls:
            for variable, given in (("HTTP_PORT", self.http_port), ("HSTS_SECONDS", self.hsts_seconds)):
                if given:
                    raise ValueError(f"{variable} needs TLS here: set TLS_CERT and TLS_KEY, or TLS_DIR.")
        return self

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        given = {"PORT": self.port or None, "HTTP_PORT": self.http_port, "METRICS_PORT": self.metrics_port}
        for (one, port), (other, same) in combinations(given.items(), 2):
            if port is not None and port == same:
                raise ValueError(f"{other} and {one} must be different ports.")
        return self

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.journal_max_bytes // self.web_concurrency < 1024**2:
            raise ValueError(
                "JOURNAL_MAX_BYTES: each of WEB_CONCURRENCY processes needs at least 1048576 of them."
            )
        return self
