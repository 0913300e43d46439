"""attribution: an install (/t/ist) finds its click by its lookup keys, and a /t/mac tells of it.

Clicks in their windows, installs that wait, attributions and the outbox are one commit with the positions; the outbox
goes to Kafka in transactions that hold its position. So both outputs are there once, whatever is killed or repeated.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition

from collector.event import CLICKS
from consumers.attribution_events import (
    Click,
    Install,
    UnreadableError,
    click_of,
    id_of_text,
    install_of,
    is_text,
)
from consumers.attribution_rows import PRUNED_AT_ONCE, Kept, Moment, add, lock, prune
from consumers.database import Database
from consumers.outbox import Outbox
from consumers.outbox_publisher import OutboxPublisher
from consumers.positions import bury, move, positions
from consumers.progress import Progress
from consumers.sink import Batch
from kafkastore.destination import Destination
from kafkastore.settings import KafkastoreSettings
from process.tasks import end

NAME: Final = "attribution"

_PRUNE_SECONDS: Final = 60.0


class Attribution:
    """The sink of `consumers run attribution`, in the database of links."""

    rest_seconds = 0.0

    def __init__(
        self, database_url: str, kafka: KafkastoreSettings, progress: Progress, *, wait_seconds: int
    ) -> None:
        self.topics = (CLICKS, *kafka.inapp_topics)
        self._database = Database(database_url)
        self._kafka = kafka
        self._progress = progress
        self._wait_seconds = wait_seconds
        self._prune_at = 0.0
        self._publisher: OutboxPublisher | None = None
        self._publishing: asyncio.Task[None] | None = None

    async def positions(
        self, cluster_id: str, beginnings: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Read where each partition goes on, and see whether the outbox is this member's to publish."""
        self._see_to_the_publisher()
        await self._database.prepare()
        async with self._database.commit("the positions of attribution cannot be read") as connection:
            found = await positions(connection, NAME, cluster_id, beginnings)
        topic = self._kafka.inapp_topics[0]
        if self._publisher is None:
            outbox = Outbox(self._database, self._place(cluster_id))
            self._publisher = OutboxPublisher(self._kafka, outbox, topic, self._progress)
            self._publishing = asyncio.create_task(self._publisher.run())
        self._publisher.chosen = TopicPartition(self._kafka.kafka_prefix + topic, 0) in beginnings
        self._publisher.wake()
        return found

    async def write(self, batch: Batch) -> Sequence[tuple[Any, str]]:
        """Add what the records say, and what comes of it, in one commit with the positions."""
        self._see_to_the_publisher()
        kept, dead = kept_of(batch, self._kafka.kafka_prefix)
        now = time.time()
        moment = Moment(self._place(batch.cluster_id), int(now * 1000), int(now) + self._wait_seconds)
        async with self._database.commit("attributions cannot be written") as connection:
            await move(connection, NAME, batch)
            await bury(connection, NAME, batch.cluster_id, dead)
            if kept.clicks or kept.installs:
                await lock(connection)
                matched = await add(connection, kept, moment)
            else:
                matched = None
        if matched and self._publisher is not None:
            self._progress.attributed.update(matched)
            self._publisher.wake()
        await self._prune_now_and_then()
        return dead

    async def bury(self, batch: Batch, reason: str) -> None:
        """Keep a record as a dead letter, in one commit with its position."""
        dead = [(record, reason) for span in batch.spans for record in span.records]
        async with self._database.commit("a dead letter cannot be written") as connection:
            await move(connection, NAME, batch)
            await bury(connection, NAME, batch.cluster_id, dead)

    async def prune(self) -> int:
        """Forget clicks past their window and installs past their wait, some of each; gives the more numerous."""
        now = int(time.time())
        async with self._database.commit("attribution cannot be pruned") as connection:
            await lock(connection)
            clicks, installs = await prune(connection, till_before=now - self._wait_seconds, now=now)
        self._progress.unattributed += installs
        return max(clicks, installs)

    async def drain(self) -> bool:
        """Wait until the outbox is in Kafka, a while at most; tells whether it is, as far as it is up to us."""
        return self._publisher is None or await self._publisher.drain()

    async def close(self) -> None:
        """Stop publishing, and close the connections; what is in the outbox stays there."""
        if self._publishing is not None:
            await end({self._publishing})
        await self._database.close()

    def _place(self, cluster_id: str) -> str:
        return Destination(cluster_id, self._kafka.kafka_prefix, self._kafka.delivery).place

    def _see_to_the_publisher(self) -> None:
        """Let what it cannot handle end the process."""
        if self._publishing is not None and self._publishing.done():
            self._publishing.result()

    async def _prune_now_and_then(self) -> None:
        """Prune once a minute, but only when everything is read: what is late may still be in Kafka."""
        if not self._progress.caught_up or time.monotonic() < self._prune_at:
            return
        if await self.prune() < PRUNED_AT_ONCE:
            self._prune_at = time.monotonic() + _PRUNE_SECONDS


def kept_of(batch: Batch, prefix: str) -> tuple[Kept, list[tuple[Any, str]]]:
    """Read a batch; gives what is kept of it and the records that are dead letters, with reasons."""
    clicks: dict[str, Click] = {}
    installs: dict[str, Install] = {}
    sources: dict[str, tuple[bytes | None, bytes]] = {}
    dead: list[tuple[Any, str]] = []
    for record in (record for span in batch.spans for record in span.records):
        if record.value is None:
            dead.append((record, "there is no value"))
            continue
        text_id = _text_id(batch.cluster_id, record) if is_text(record.value) else ""
        try:
            if record.topic == prefix + CLICKS:
                if click := click_of(record.value, text_id):
                    clicks[click.event_id] = click
            elif install := install_of(record.value, text_id):
                installs[install.event_id] = install
                sources[install.event_id] = record.key, record.value
        except UnreadableError as error:
            dead.append((record, str(error)))
    return Kept(clicks, installs, sources), dead


def _text_id(cluster_id: str, record: Any) -> str:
    where = f"{cluster_id}/{record.topic}/{record.partition}/{record.offset}"
    return id_of_text(dict(record.headers), where)
