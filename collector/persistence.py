"""What a Redis keeps of what it acknowledged, should it die or fill up: asked of it, and said in sentences."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from process.finding import Finding

_NO_EVICTION: Final = "noeviction"


@dataclass(frozen=True, slots=True)
class Persistence:
    """What a Redis says of itself; None where it does not say (a managed one may not)."""

    appendonly: bool | None
    appendfsync: str | None
    maxmemory_policy: str | None

    @property
    def immediate(self) -> bool:
        """Whether what it acknowledged is on disk."""
        return bool(self.appendonly) and self.appendfsync == "always"

    def promise(self, *, claim_durable: bool) -> str:
        """Say what holds when this Redis comes back with an older state than it had."""
        if self.immediate or claim_durable:
            return "nothing is lost and nothing doubled"
        return "nothing is lost that the journal still has; events that double have the same event_id"


async def persistence_of(redis: Redis) -> Persistence:
    """Ask a Redis; raises RedisError."""
    told: dict[Any, Any] = {}
    with suppress(ResponseError):  # neither INFO nor CONFIG is for everybody
        told |= await redis.info("persistence")
        told |= await redis.info("memory")
        told |= await redis.config_get("appendfsync")
    enabled = told.get("aof_enabled")
    return Persistence(
        appendonly=None if enabled is None else bool(enabled),
        appendfsync=told.get("appendfsync"),
        maxmemory_policy=told.get("maxmemory_policy"),
    )


def weaknesses(persistence: Persistence, *, log_wanted_by: str | None) -> Iterator[Finding]:
    """Say what is wrong with a Redis that is to hold events; `log_wanted_by` names the setting that needs its log."""
    if persistence.maxmemory_policy not in (None, _NO_EVICTION):
        yield Finding(
            f"throws events away when it is full (maxmemory-policy {persistence.maxmemory_policy}): "
            f"set it to {_NO_EVICTION}."
        )
    if persistence.appendonly is False and log_wanted_by:
        yield Finding(f"has no append-only file to wait for: set appendonly yes, or not {log_wanted_by}.")
    elif persistence.appendonly is False:
        yield Finding(
            "has no append-only file (appendonly no): when it dies, what was not in Kafka comes from the journals.",
            fatal=False,
        )
    elif persistence.appendonly and persistence.appendfsync == "no":
        yield Finding(
            "leaves it to the system when to write (appendfsync no): set everysec or always.", fatal=False
        )
