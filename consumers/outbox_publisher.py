"""Publishes the outbox: claim → publish → forget, as the kafkastore does, with its publisher.

Of the members of a group, the one that reads the first partition of the first in-app topic does it. That is no lock:
for a moment there may be two, of which Kafka fences the older, and what it had in flight is found by its id.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from consumers.mac import mac_record
from consumers.outbox import Claimed, Outbox
from consumers.progress import Progress
from consumers.sink import SinkAwayError
from kafkastore.connection import PublishError
from kafkastore.destination import Destination
from kafkastore.outgoing import Outgoing
from kafkastore.publisher import Publisher, open_publisher
from kafkastore.queue import Batch
from kafkastore.refusal import RefusedError
from kafkastore.settings import KafkastoreSettings

QUEUE_ID: Final = "attribution"
"""In the transactional id and as the key of its checkpoints."""

MOST_RECORDS: Final = 100
"""In one transaction: 0.2 MB of ordinary ones, 80 MB of the largest there may be."""

POLL_SECONDS: Final = 1.0
"""Between looks at what other members have put there; what this one puts there is published at once."""

RETRY_SECONDS: Final = 1.0

DRAIN_SECONDS: Final = 30.0
"""For what is left at the end of a run that ends by itself."""

_DRAIN_POLL_SECONDS: Final = 0.1


@dataclass(slots=True)
class OutboxPublisher:
    """Publishes as long as it runs, and only while it should."""

    settings: KafkastoreSettings
    outbox: Outbox
    topic: str
    """Without the prefix."""
    progress: Progress
    chosen: bool = False
    """Whether this member is the one."""
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _most: int = field(default_factory=lambda: MOST_RECORDS)

    def wake(self) -> None:
        """Say that something may have changed."""
        self._woken.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            if not self.chosen:
                self.progress.unpublished = None
                await self._rest(POLL_SECONDS)
                continue
            try:
                async with open_publisher(self.settings, QUEUE_ID) as publisher:
                    await self._publish_by(publisher)
            except (PublishError, SinkAwayError) as error:
                self.progress.not_published(str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def drain(self) -> bool:
        """Wait until nothing is left for this member to publish, DRAIN_SECONDS at most; tells whether that is so."""
        ends_at = time.monotonic() + DRAIN_SECONDS
        while self.chosen and time.monotonic() < ends_at:
            self.wake()
            try:
                if not await self.outbox.waiting():
                    return True
            except SinkAwayError as error:
                self.progress.not_published(str(error))
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        return not self.chosen

    async def _publish_by(self, publisher: Publisher) -> None:
        """Publish by one producer: until it is another member's turn, or something is refused, or an error."""
        last = await publisher.last_checkpoint()
        while self.chosen and not publisher.worn_out:
            self._woken.clear()
            claimed = await self.outbox.claim(self._most)
            self.progress.unpublished = await self.outbox.waiting()
            if claimed is None:
                self.progress.published()
                await self._rest(POLL_SECONDS)
                continue
            if last is None or last.batch_id != claimed.id:
                try:
                    last = await publisher.publish(self._outgoing(claimed)) or last
                except RefusedError as refused:
                    await self._smaller(claimed, refused)
                    return  # this publisher is done
            await self.outbox.forget(claimed.id)
            self._most = min(self._most * 2, MOST_RECORDS)

    async def _smaller(self, claimed: Claimed, refused: RefusedError) -> None:
        """Claim less the next time; what is refused alone stays in the outbox. Nothing of the batch is committed."""
        if len(claimed.rows) > 1:
            self._most = max(len(claimed.rows) // 2, 1)
            await self.outbox.release(claimed.id)
            return
        reason = next((str(answer.error) for answer in refused.answers if answer.error), "refused by Kafka")
        await self.outbox.refuse(claimed.id, reason)
        self.progress.not_published(f"Kafka refuses {claimed.rows[0].event_id}: {reason}")

    def _outgoing(self, claimed: Claimed) -> Outgoing:
        now_ms = time.time_ns() // 1_000_000
        destination = Destination(self.outbox.place, self.settings.kafka_prefix, self.settings.delivery)
        records = {
            index: mac_record(
                row.event_id,
                topic=self.topic,
                key=row.record_key,
                value=row.value,
                at_ms=row.at_ms,
                now_ms=now_ms,
            )
            for index, row in enumerate(claimed.rows)
        }
        return Outgoing(Batch(claimed.id, destination, []), records)

    async def _rest(self, seconds: float) -> None:
        """Wait, but not longer than until woken."""
        waiting = asyncio.create_task(self._woken.wait())
        try:
            await asyncio.wait({waiting}, timeout=seconds)
        finally:
            waiting.cancel()
        self._woken.clear()
