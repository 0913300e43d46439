"""One membership in the group: partitions come and go, batches are read and handed to the sink."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from consumers.progress import Progress
from consumers.sink import Batch, Gathers, MovedError, RefusedError, Sink, SinkAwayError, Span
from process.logs import log

MOST_RECORDS: Final = 20_000
"""In one batch: 26 MB of ordinary clicks, and less than a second of a sink's work."""

_POLL_MS: Final = 200

_RETRY_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Between questions to a sink that is away; the last one again and again, until it answers or we are told to stop."""

_SILENCE_SECONDS: Final = 15.0
"""Brokers answer five times a second although there is nothing to read; a new leader is elected in less than this."""


@dataclass(eq=False)
class Session(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """What one consumer of aiokafka's reads."""

    consumer: AIOKafkaConsumer
    cluster_id: str
    sink: Sink
    progress: Progress
    skip_lost: bool
    until_end: bool
    _next: dict[TopicPartition, int] = field(default_factory=dict)
    """Where the sink is with each partition, as far as we know."""
    _placed: bool = False
    """Whether we stand there, with all partitions that are ours now."""
    _answer: int = 0
    """The time of the brokers' last answer, by aiokafka's clock."""
    _heard_at: float = field(default_factory=time.monotonic)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Do nothing: the batch in hand is written, or loses its compare-and-set."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Read nothing before the sink has said where."""
        self._placed = False
        for partition in assigned:
            self.consumer.pause(partition)
            self.consumer.seek(partition, 0)  # without any position aiokafka would ask for the group's

    async def read(self, stop: asyncio.Event) -> bool:
        """Read until told to stop, or until the end where that is wanted; tells whether that was reached."""
        while not stop.is_set():
            if not self._placed:
                await self._place(stop)
                continue
            batch = await self._next_batch()
            if batch.spans:
                await self._hand_over(self._write(batch))
            if self._placed:
                self._look_ahead()
                at_end = self.until_end and self._at_end()
                await self._settle(everything=at_end)
                if at_end and self._placed:
                    return True
            if batch.spans and sum(self.progress.lag.values()) < MOST_RECORDS:
                await pause(stop, self.sink.rest_seconds)
        return False

    async def _place(self, stop: asyncio.Event) -> None:
        """Ask the sink where each partition goes on, until it answers, and stand there."""
        for attempt in count():
            if stop.is_set() or self._placed:
                return
            self._placed = True  # until a rebalance says otherwise
            try:
                beginnings = await self.consumer.beginning_offsets(self.consumer.assignment())
                positions = await self.sink.positions(self.cluster_id, beginnings)
            except SinkAwayError as error:
                self._pause(error)
                await self.consumer.getmany()  # nothing, as all is paused; the group sees that we live
                await pause(stop, _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            else:
                if self._placed:
                    self._stand(positions)

    def _stand(self, positions: Mapping[TopicPartition, int]) -> None:
        self._next = dict(positions)
        self.progress.partitions = len(positions)
        self.progress.stopped.clear()
        self.progress.lag.clear()
        for partition, offset in positions.items():
            self.consumer.seek(partition, offset)
            self.consumer.resume(partition)
        self.progress.goes_on()

    def _pause(self, error: SinkAwayError) -> None:
        """Fetch nothing more; what aiokafka has fetched ahead goes with the next poll."""
        self._placed = False
        self.consumer.pause(*self.consumer.assignment())
        self.progress.waits("the sink is away", str(error))

    async def _next_batch(self) -> Batch:
        """Read on; gives what there is after a while, which may be nothing."""
        found: Mapping[TopicPartition, Any] = {}
        try:
            found = await self.consumer.getmany(timeout_ms=_POLL_MS, max_records=MOST_RECORDS)
        except OffsetOutOfRangeError as error:
            await self._out_of_range(error.args[0])
        except NoOffsetForPartitionError:
            self._placed = False
        if self._next.keys() != self.consumer.assignment():
            self._placed = False
        spans = []
        for partition in self._next.keys() - self.progress.stopped if self._placed else ():
            begin, end = self._next[partition], await self.consumer.position(partition)
            if begin != end:
                spans.append(Span(partition, begin, end, found.get(partition, ())))
        # Partitions may have gone while we asked: what was found is then another's.
        return Batch(self.cluster_id, spans if self._placed else ())

    async def _out_of_range(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Stop partitions whose next record is not there, or go on behind what is lost where that is wanted."""
        beginnings = await self.consumer.beginning_offsets(list(offsets))
        for partition, offset in offsets.items() if self._placed else ():
            oldest = beginnings[partition]
            where = {
                "topic": partition.topic,
                "partition": partition.partition,
                "position": offset,
                "oldest": oldest,
            }
            if self.skip_lost:
                self.consumer.seek(partition, oldest)
                log.warning("lost_records_skipped", consumer=self.progress.consumer, **where)
                continue
            self.consumer.pause(partition)
            self.progress.stopped.add(partition)
            self.progress.lag.pop(partition, None)
            log.error(
                "partition_stopped",
                consumer=self.progress.consumer,
                **where,
                why="Kafka has no record at this position: retention removed it, or the topic was made anew",
                cure=f"accept the loss and go on at the oldest: consumers run {self.progress.consumer} --skip-lost",
            )

    async def _settle(self, *, everything: bool) -> None:
        """Let a sink that gathers write what is due, though nothing may have come."""
        if isinstance(self.sink, Gathers):
            await self._hand_over(self.sink.settle(everything=everything))

    async def _hand_over(self, step: Coroutine[Any, Any, None]) -> None:
        """Have the sink do something; if that fails, it is asked where it is before anything more is read."""
        try:
            await step
        except SinkAwayError as error:
            self.progress.failed["away"] += 1
            self._pause(error)
        except MovedError as error:
            self.progress.failed["moved"] += 1
            self._placed = False
            log.info("another_member_was_faster", consumer=self.progress.consumer, why=str(error))

    async def _write(self, batch: Batch) -> None:
        """Write a batch; of what the sink refuses, find the record and bury it."""
        try:
            dead = await self.sink.write(batch)
        except RefusedError as refused:
            self.progress.failed["refused"] += 1
            if batch.size > 1:
                for half in batch.halves():
                    await self._write(half)
                return
            dead = [(record, str(refused)) for span in batch.spans for record in span.records]
            await self.sink.bury(batch, str(refused))
        self._next |= {span.partition: span.end for span in batch.spans}
        self.progress.written(batch, dead)

    def _look_ahead(self) -> None:
        """See how far behind we are, and whether brokers answer at all."""
        reading = self._next.keys() - self.progress.stopped
        for partition in reading:
            stable = self.consumer.last_stable_offset(partition)
            if stable is not None:
                self.progress.lag[partition] = max(stable - self._next[partition], 0)
        answer = max((self.consumer.last_poll_timestamp(partition) or 0 for partition in reading), default=0)
        if not reading or answer != self._answer:
            self._answer, self._heard_at = answer, time.monotonic()
            self.progress.goes_on()
        elif time.monotonic() - self._heard_at > _SILENCE_SECONDS:
            self.progress.waits("Kafka is away", f"no broker answered for {_SILENCE_SECONDS:g} s")

    def _at_end(self) -> bool:
        reading = self._next.keys() - self.progress.stopped
        return bool(self._next) and all(self.progress.lag.get(partition) == 0 for partition in reading)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than until told to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
