"""Is the kafkastore able to work: what `/readyz` on METRICS_PORT answers."""

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from kafkastore.pipeline import Pipeline
from kafkastore.settings import KafkastoreSettings
from process.readiness import Readiness
from process.tasks import within

KAFKA_SECONDS = 1.0
"""For one broker to take a connection."""


async def readiness(
    settings: KafkastoreSettings, pipeline: Pipeline, redises: Sequence[Redis], stop: asyncio.Event
) -> Readiness:
    """Ask everything that events depend on; a kafkastore that waits for another one's queues is ready."""
    against = ["stopping"] if stop.is_set() else []
    answers = await asyncio.gather(*(redis.ping() for redis in redises), return_exceptions=True)
    for number, answer in enumerate(answers, 1):
        if isinstance(answer, RedisError | OSError):
            against.append(f"Redis {number} of {len(redises)} away")
        elif isinstance(answer, BaseException):
            raise answer
    if not await _any_broker(settings.kafka_url):
        against.append("Kafka away")
    against += [f"queue {state.queue} of Redis {state.redis} {state.why}" for state in pipeline.troubles()]
    return Readiness(tuple(against))


async def _any_broker(brokers: str) -> bool:
    """Tell whether one of the brokers takes connections."""
    return any(await asyncio.gather(*(_is_there(broker) for broker in brokers.split(","))))


async def _is_there(broker: str) -> bool:
    host, _, port = broker.rpartition(":")
    try:
        _, writer = await within(KAFKA_SECONDS, asyncio.open_connection(host.strip("[]"), int(port)))
    except OSError:
        return False
    writer.close()
    return True
