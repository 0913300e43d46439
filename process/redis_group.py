"""Several servers that are one Redis: `redis+sentinel://…` and `redis+cluster://…`, read. Pure.

    redis+sentinel://user:password@host:26379,host:26379/master-name/0
    redis+cluster://user:password@host:6379,host:6379

`rediss+` speaks TLS to the servers, and to those who are asked for them.
"""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

_SCHEMES: Final = {f"{redis}+{kind}" for redis in ("redis", "rediss") for kind in ("sentinel", "cluster")}
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class RedisGroup:
    """Whom to ask for the server in charge."""

    kind: Literal["sentinel", "cluster"]
    servers: tuple[tuple[str, int], ...]
    """Sentinels, or any nodes of the cluster."""
    service: str
    """What the sentinels call it; "" for a cluster."""
    database: int
    username: str | None
    password: str | None
    tls: bool


def is_group(url: str) -> bool:
    """Tell whether a URL names several servers."""
    return urlsplit(url).scheme in _SCHEMES


def redis_group(url: str) -> RedisGroup:
    """Read such a URL; raises ValueError with what is wrong."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    credentials, _, named = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "sentinel" and not service:
        raise ValueError("the name of the master is missing: redis+sentinel://host:26379/NAME")
    if kind == "cluster" and parts.path.strip("/"):
        raise ValueError("a cluster has one database and no name: redis+cluster://host:6379")
    if database and not database.isdecimal():
        raise ValueError("the database is no number")
    return RedisGroup(
        kind="sentinel" if kind == "sentinel" else "cluster",
        servers=tuple(_server(entry, _PORTS[kind]) for entry in named.split(",")),
        service=service,
        database=int(database or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=scheme == "rediss",
    )


def _server(entry: str, port: int) -> tuple[str, int]:
    server = urlsplit(f"//{entry}")
    if not server.hostname:
        raise ValueError("a host is missing")
    return server.hostname, server.port or port
