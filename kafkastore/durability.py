"""What a Redis can promise of what it acknowledged, should it die: asked of it, and said in sentences."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

_NO_EVICTION: Final = "noeviction"


@dataclass(frozen=True, slots=True)
class Durability:
    """What a Redis says of itself; None where it does not say (a managed one may not)."""

    appendonly: bool | None
    appendfsync: str | None
    maxmemory_policy: str | None

    @property
    def immediate(self) -> bool:
        """Whether what it acknowledged is on disk."""
        return bool(self.appendonly) and self.appendfsync == "always"


async def durability_of(redis: Redis) -> Durability:
    """Ask a Redis; raises RedisError."""
    told: dict[Any, Any] = {}
    with suppress(ResponseError):  # neither INFO nor CONFIG is for everybody
        told |= await redis.info("persistence")
        told |= await redis.info("memory")
        told |= await redis.config_get("appendfsync")
    enabled = told.get("aof_enabled")
    return Durability(
        appendonly=None if enabled is None else bool(enabled),
        appendfsync=told.get("appendfsync"),
        maxmemory_policy=told.get("maxmemory_policy"),
    )


def promise(durability: Durability, *, claim_durable: bool) -> str:
    """Say what holds when this Redis comes back with an older state than it had."""
    if durability.immediate or claim_durable:
        return "nothing is lost and nothing doubled"
    return "nothing is lost that the journal still has; events that double have the same event_id"


def findings(durability: Durability, *, claim_durable: bool) -> list[str]:
    """Say what is wrong with a Redis that is to hold events, with the cure."""
    found = []
    if durability.maxmemory_policy not in (None, _NO_EVICTION):
        found.append(
            f"throws events away when it is full (maxmemory-policy {durability.maxmemory_policy}): "
            f"set it to {_NO_EVICTION}."
        )
    if claim_durable and durability.appendonly is False:
        found.append("has no append-only file to wait for: set appendonly yes, or CLAIM_DURABLE=0.")
    return found


def warnings(durability: Durability) -> list[str]:
    """Say what it costs when this Redis dies, where that is more than a second of its log."""
    if durability.appendonly is False:
        return [
            "has no append-only file (appendonly no): when it dies, what was not in Kafka comes from the journals."
        ]
    if durability.appendfsync == "no":
        return ["leaves it to the system when to write (appendfsync no): set everysec or always."]
    return []
