"""claim → enrich → publish → forget: read this first, the other files are its steps.

A batch leaves Redis only when Kafka has it. Whatever fails in between, the batch is found in flight again, and
the last checkpoint in Kafka tells whether it arrived.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from redis.exceptions import RedisError

from collector.event import Event, MalformedEventError
from geoip.place import Place
from kafkastore.dead_letter import dead_letter
from kafkastore.enrichment import Policy, Source, enrich
from kafkastore.publisher import Publisher, PublishError, open_publisher
from kafkastore.queue import RENEW_SECONDS, Batch, NotOwnerError, Queue
from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics
from process.logs import log
from process.tasks import end

IDLE_SECONDS: Final = 0.02
"""Between looks at an empty queue: 50 cheap scripts a second, and 10 ms of a click's way to Kafka on average."""

FINISH_SECONDS: Final = 4.0
"""For a batch in hand when told to stop. A producer takes 2 s more to end, a lease 1 s: gone within 10 s."""

RETRY_SECONDS: Final = 1.0
"""Between attempts while Redis or Kafka is away."""

SAY_AGAIN_SECONDS: Final = 60.0
"""Between two log lines about the same trouble."""

MOST_BYTES: Final = 900_000
"""Of a value or a dead letter: a broker's default limit is 1,048,588 for a record with its key, headers and frame."""


@dataclass
class Pipeline:
    """Moves the events of some queues; counts what it moved."""

    settings: KafkastoreSettings
    place_of: Callable[[str], Place]
    until_empty: bool = False
    published: Counter[str] = field(default_factory=Counter)
    """Records in Kafka, by topic."""
    dropped_bots: int = 0
    """Bots' events under BOTS=drop."""
    _trouble: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Queues that wait: why, and when that was said last."""

    async def run(self, queues: list[Queue], stop: asyncio.Event) -> None:
        """Move events until told to stop, or until the queues are empty."""
        tending: set[asyncio.Task[None]] = {asyncio.create_task(self._tend(queue, stop)) for queue in queues}
        stopped = asyncio.create_task(stop.wait())
        try:
            while tending and not stopped.done():
                done, _ = await asyncio.wait({*tending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in tending & done:
                    task.result()
                tending -= done
            if tending:
                await asyncio.wait(tending, timeout=FINISH_SECONDS)
        finally:
            await end({*tending, stopped})

    async def _tend(self, queue: Queue, stop: asyncio.Event) -> None:
        """Own one queue as long as we can; begin again after whatever went wrong."""
        while not stop.is_set():
            try:
                if await queue.own():
                    if await self._move(queue, stop):
                        return
                elif self.until_empty and not await queue.length():
                    return
            except (PublishError, RedisError, OSError, NotOwnerError) as error:
                self._say_why(queue, str(error) or type(error).__name__)
            await _pause(stop, RETRY_SECONDS)

    def _say_why(self, queue: Queue, why: str) -> None:
        """Log why a queue waits when that changes, and once a minute as long as it does."""
        said, at = self._trouble.get(queue.keys.list, ("", 0.0))
        if why != said or time.monotonic() - at > SAY_AGAIN_SECONDS:
            log.warning("queue_waits", queue=queue.keys.list, why=why)
            self._trouble[queue.keys.list] = (why, time.monotonic())

    async def _move(self, queue: Queue, stop: asyncio.Event) -> bool:
        """Move batches of a queue we own; True when there is nothing more to do."""
        renewal = asyncio.create_task(_keep(queue))
        try:
            await ensure_topics(self.settings)
            async with open_publisher(self.settings, await queue.id()) as publisher:
                last = await publisher.last_batch_id()
                if queue.keys.list not in self._trouble:
                    log.info("queue_owned", queue=queue.keys.list, last_batch=last)
                while not stop.is_set():
                    if renewal.done():
                        renewal.result()
                    batch = await queue.claim()
                    if batch is not None:
                        last = await self._deliver(queue, publisher, batch, last)
                    elif self.until_empty:
                        return True
                    else:
                        await _pause(stop, IDLE_SECONDS)
                return True
        finally:
            await end({renewal})
            await _release(queue)

    async def _deliver(self, queue: Queue, publisher: Publisher, batch: Batch, last: str | None) -> str:
        """Publish a batch, unless it is the one that Kafka has already; then forget it."""
        unpublishable = [line for line in batch.lines if len(line) > MOST_BYTES]
        if batch.id != last:
            records = self._enriched(batch)
            await publisher.publish(batch.id, records)
            self.published.update(record.topic for record in records)
        await queue.forget(batch, unpublishable)
        if unpublishable:
            log.error(
                "lines_too_large_for_kafka",
                queue=queue.keys.list,
                lines=len(unpublishable),
                kept_in="click_invalid",
            )
        if self._trouble.pop(queue.keys.list, None):
            log.warning("queue_goes_on", queue=queue.keys.list)
        return batch.id

    def _enriched(self, batch: Batch) -> list[Record]:
        """Give the records of all lines that Kafka can take: an event's, or a dead letter's."""
        now_ms = time.time_ns() // 1_000_000
        lines = ((index, line) for index, line in enumerate(batch.lines) if len(line) <= MOST_BYTES)
        records = (self._record(line, Source(batch.id, index), now_ms) for index, line in lines)
        return [record for record in records if record is not None]

    def _record(self, line: bytes, source: Source, now_ms: int) -> Record | None:
        try:
            event = Event.decode(line, self._topics)
        except MalformedEventError as error:
            return dead_letter(line, reason=error.reason, step="decode", topic=error.topic, at_ms=now_ms)
        record = enrich(event, source, now_ms=now_ms, place_of=self.place_of, policy=self._policy)
        if record is None:
            self.dropped_bots += 1
        elif len(record.value) > MOST_BYTES:
            return dead_letter(
                line, reason="too large for Kafka", step="enrich", topic=event.topic, at_ms=now_ms
            )
        return record

    @cached_property
    def _topics(self) -> frozenset[str]:
        return self.settings.topics

    @cached_property
    def _policy(self) -> Policy:
        return Policy(
            bots=self.settings.bots,
            ip_privacy=self.settings.ip_privacy,
            honor_gpc=self.settings.gpc == "honor",
            honor_dnt=self.settings.dnt == "honor",
        )


async def _keep(queue: Queue) -> None:
    """Renew the lease until cancelled; ends with NotOwnerError when it is lost."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            if not await queue.own():
                raise NotOwnerError("another process owns this queue")
        except (RedisError, OSError):
            continue  # the next claim meets the same Redis, and says so


async def _release(queue: Queue) -> None:
    try:
        await queue.release()
    except (RedisError, OSError):
        log.warning("lease_not_released", queue=queue.keys.list)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than until told to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
