"""What the operator set: environment variables, read once at start into one small frozen object a process.

A settings class is a pydantic model whose fields are the variables in lower case, with their defaults and
their meaning; nothing else in the code reads the environment. An empty variable counts as unset, and every
secret can also come from a file named by NAME_FILE.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from redis.asyncio.connection import parse_url

from process.redis_group import is_group, redis_group

REDIS_SHARDS = "REDIS_URL_CLICKSTORE"


class SettingsError(Exception):
    """One sentence a variable: its name, what was wanted, and the cure."""


class Settings(BaseModel):
    """The base of every process's settings."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = Field(
        "info", description="debug, info, warning or error"
    )


class MetricsSettings(BaseModel):
    """Where a process is watched."""

    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 (a public endpoint)
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="a TCP port for /metrics (Prometheus), /healthz and /readyz, 1 to 65535; unset: none",
    )


def _redis_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if is_group(url):
        redis_group(url)
        return value
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("this is no redis:// or rediss:// URL")
    parse_url(url)
    return value


_RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class RedisSettings(BaseModel):
    """Where the queues are: the same for the collector and the kafkastore."""

    redis_url: _RedisUrl = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="a redis:// or rediss:// URL; redis+sentinel://host:26379,…/master or redis+cluster://host:6379,…",
    )
    redis_tls_url: _RedisUrl | None = Field(None, description="a rediss:// URL; used before REDIS_URL")
    redis_url_clickstore: tuple[_RedisUrl, ...] = Field(
        (), description="several Redis: REDIS_URL_CLICKSTORE_1, _2, …; used before the other two"
    )
    redis_tls_insecure: bool = Field(
        default=False, description="1 accepts any certificate of a rediss:// server"
    )
    queues: int = Field(1, ge=1, le=64, description="queues on each Redis, 1 to 64")

    @model_validator(mode="after")
    def _one_queue_on_a_cluster(self) -> Self:
        """Keys of two queues are on two nodes, and what kafkastores share of a Redis is on one."""
        if self.queues > 1 and any("+cluster:" in url for url in self.redis_urls):
            raise ValueError(
                "QUEUES is more than 1 on Redis Cluster, where a queue has one node: set QUEUES=1."
            )
        return self

    @property
    def redis_urls(self) -> tuple[str, ...]:
        """The Redis servers in use, in order: the numbered ones, else REDIS_TLS_URL, else REDIS_URL."""
        urls = self.redis_url_clickstore or (self.redis_tls_url or self.redis_url,)
        return tuple(url.get_secret_value() for url in urls)


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def read_settings(model: type[AnySettings], environ: Mapping[str, str]) -> AnySettings:
    """Read every variable of `model` from `environ`; raise SettingsError that names each one that is wrong."""
    given: dict[str, object] = {}
    for field, info in model.model_fields.items():
        variable = field.upper()
        if variable == REDIS_SHARDS:
            value: object = _shards(environ)
        else:
            value = _value(environ, variable, secret="SecretStr" in str(info.annotation))
        if value:
            given[field] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(model, error))) from None


def _value(environ: Mapping[str, str], variable: str, *, secret: bool) -> str | None:
    value = environ.get(variable) or None
    file = environ.get(f"{variable}_FILE") or None if secret else None
    if file is None:
        return value
    if value is not None:
        raise SettingsError(f"{variable} and {variable}_FILE are both set: keep one of them.")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}_FILE: {file} cannot be read ({error}).") from None


def _shards(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Every REDIS_URL_CLICKSTORE… that is set, by its number; names without one come first."""

    def number(variable: str) -> tuple[int, str]:
        digits = re.search(r"(\d+)$", variable)
        return (int(digits[1]) if digits else -1, variable)

    names = {name.removesuffix("_FILE") for name in environ if name.startswith(REDIS_SHARDS)}
    values = (_value(environ, name, secret=True) for name in sorted(names, key=number))
    return tuple(value for value in values if value)


def _sentences(model: type[BaseModel], error: ValidationError) -> list[str]:
    sentences = []
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if field in model.model_fields:
            wanted = model.model_fields[field].description
            sentences.append(f"{field.upper()} does not parse ({problem['msg']}); wanted: {wanted}.")
        else:
            sentences.append(problem["msg"].removeprefix("Value error, "))
    return sentences
