"""The server in charge of a queue at present, asked for at each connect: of sentinels, or of a cluster's nodes.

A server that has become a replica, or has handed the queue on, says so in an error: then its connection is closed,
and the next one goes to whoever is in charge by then. Nothing is sent twice: who sent a command asks, and decides.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ReadOnlyError, RedisError

from process.redis_group import RedisGroup

Find = Callable[[], Awaitable[tuple[str, int]]]
"""Gives host and port of the server in charge; raises RedisError."""


class _Led(Connection):
    """A connection to whoever is in charge."""

    def __init__(self, *, find: Find, **options: Any) -> None:
        super().__init__(**options)
        self._find: Final = find

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._find()
        await super().connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except (MovedError, ReadOnlyError) as error:
            await self.disconnect()
            raise RedisConnectionError(f"another server is in charge now ({error})") from error


class _LedByTls(_Led, SSLConnection):
    pass


def leader(group: RedisGroup, key: str, options: dict[str, Any]) -> tuple[type[Connection], dict[str, Any]]:
    """Give the class of connections to the server in charge of `key`, and what they are made with."""
    asking = {**options, "retry": Retry(NoBackoff(), 0), "ssl": group.tls}
    find = partial(_of_sentinels if group.kind == "sentinel" else _of_cluster, group, key, asking)
    made_with = {
        **options,
        "find": find,
        "username": group.username,
        "password": group.password,
        "db": group.database,
    }
    return (_LedByTls if group.tls else _Led), made_with


async def _of_sentinels(group: RedisGroup, _key: str, asking: dict[str, Any]) -> tuple[str, int]:
    sentinel = Sentinel(group.servers, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    try:
        host, port = await sentinel.discover_master(group.service)
    finally:
        for one in sentinel.sentinels:
            await one.aclose()
    return str(host), int(port)


async def _of_cluster(group: RedisGroup, key: str, asking: dict[str, Any]) -> tuple[str, int]:
    """Ask nodes in turn which of the cluster has a key; a host that is not named is the one that was asked."""
    slot = key_slot(key.encode())
    why: RedisError | None = None
    for host, port in group.servers:
        try:
            async with Redis(
                host=host, port=port, username=group.username, password=group.password, **asking
            ) as node:
                ranges = await node.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        except RedisError as error:
            why = error
            continue
        for first, last, (name, its_port, *_), *_replicas in ranges:
            if first <= slot <= last:
                return (name.decode() if isinstance(name, bytes) else name) or host, int(its_port)
    raise RedisConnectionError(f"no node of the cluster says who has slot {slot} ({why})")
