"""One loop for all consumers: read a batch, hand it to the sink, go on; after any trouble begin where the sink is.

Kafka shares the partitions out among the members of a group, and nothing else of the group is used: where a
partition goes on is asked of the sink at each assignment and after each failure, never of Kafka's group offsets.

aiokafka knows no cooperative rebalance (KIP-429): all members let go of all partitions at each change of the group.
That costs one question to the sink and a pause of less than a second; the batch in hand is written or loses its
compare-and-set.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from consumers.cluster import cluster_with
from consumers.progress import Progress
from consumers.session import Session, pause
from consumers.sink import Sink
from kafkastore.connection import PublishError, connection, start
from kafkastore.settings import KafkastoreSettings
from process.tasks import end

START_SECONDS: Final = 10.0

STOP_SECONDS: Final = 2.0
"""For a consumer to leave its group."""

FINISH_SECONDS: Final = 4.0
"""For a batch in hand when told to stop: with STOP_SECONDS and what the sink needs to close, gone within 10 s."""

RETRY_SECONDS: Final = 1.0
"""Between attempts while Kafka is away."""

_SESSION_MS: Final = 6_000
_HEARTBEAT_MS: Final = 1_000
_REBALANCE_MS: Final = 3_000
"""A member that died is replaced after 6 s, the least that brokers allow, or 3 s after another one has come. A member
that is too slow for this joins again: what it wrote meanwhile is there, or lost its compare-and-set."""

_PARTITION_BYTES: Final = 4 * 1024 * 1024
_BROKER_BYTES: Final = 16 * 1024 * 1024
"""What aiokafka holds at most of a partition, and of a broker, while a batch is being written."""

_GATHER_BYTES: Final = 64 * 1024
_GATHER_MS: Final = 200
"""A broker answers when it has so much, or after so long: a quiet consumer commits five times a second, not fifty."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Reads for one sink."""

    settings: KafkastoreSettings
    sink: Sink
    progress: Progress
    skip_lost: bool = False
    """Go on behind records that are no longer in Kafka, instead of stopping their partition."""
    until_end: bool = False
    """End when everything is read."""

    async def run(self, stop: asyncio.Event) -> None:
        """Read until told to stop, or until the end."""
        reading = asyncio.create_task(self._read(stop))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self.progress.stopping = True
            await asyncio.wait({reading}, timeout=FINISH_SECONDS)
            if reading.done():
                reading.result()
        finally:
            await end({reading, stopped})

    async def _read(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if await self._read_once(stop):
                    return
            except (PublishError, KafkaError, OSError) as error:
                self.progress.waits("Kafka is away", str(error) or repr(error))
            await pause(stop, RETRY_SECONDS)

    async def _read_once(self, stop: asyncio.Event) -> bool:
        """Read by one consumer of aiokafka's; tells whether the end was reached, where that is wanted."""
        topics = [self.settings.kafka_prefix + topic for topic in self.sink.topics]
        cluster_id, missing = await cluster_with(self.settings, topics)
        if missing:  # to subscribe to one that does not exist would create it on many brokers
            self.progress.waits("topics are missing", f"no kafkastore has made {', '.join(missing)} yet")
            return False
        async with self._consumer() as consumer:
            session = Session(consumer, cluster_id, self.sink, self.progress, self.skip_lost, self.until_end)
            consumer.subscribe(topics, listener=session)
            return await session.read(stop)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            **connection(self.settings),
            group_id=f"{self.settings.kafka_prefix}onward-{self.progress.consumer}",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            rebalance_timeout_ms=_REBALANCE_MS,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=_BROKER_BYTES,
            fetch_min_bytes=_GATHER_BYTES,
            fetch_max_wait_ms=_GATHER_MS,
        )
        try:
            await start(consumer, self.settings, START_SECONDS)
            yield consumer
        finally:
            # A consumer whose broker is gone may not find its way to the end by itself.
            await end({asyncio.create_task(consumer.stop())}, after=STOP_SECONDS)
