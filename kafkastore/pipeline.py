"""claim → enrich → publish → forget: read this first, the other files are its steps.

A batch leaves Redis only when Kafka has it. Whatever fails in between, the batch is found in flight again, and
the last checkpoint in Kafka tells whether it arrived.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final, Literal

from redis.exceptions import RedisError

from collector.persistence import Persistence
from geoip.place import Place
from kafkastore.checkpoint import Checkpoint
from kafkastore.destination import Destination
from kafkastore.outgoing import Enricher, Outgoing
from kafkastore.ownership import ForeignBatchError, Lease, Ownership, pause
from kafkastore.publisher import Publisher, open_publisher
from kafkastore.queue import Batch, InFlight, Queue
from kafkastore.record import Record
from kafkastore.refusal import RefusedError, sift
from kafkastore.settings import KafkastoreSettings
from kafkastore.sharing import Share
from kafkastore.stop_limit import StopLimit
from kafkastore.topics import ensure_topics
from kafkastore.visitor_keys import DailyKeys, times_of
from process.logs import log
from process.metrics import Durations
from process.tasks import end

IDLE_SECONDS: Final = 0.02
"""Between looks at an empty queue: 50 cheap scripts a second, and 10 ms of a click's way to Kafka on average."""

FINISH_SECONDS: Final = 4.0
"""For a batch in hand when told to stop. A producer takes 2 s more to end, a lease 1 s: gone within 10 s."""

MEASURE_SECONDS: Final = 5.0
"""Between looks at how long the queues are."""

Resolve = Literal["publish", "forget"]
"""What to do with a batch that was on its way to another Kafka when it was claimed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A queue while we own it."""

    queue: Queue
    queue_id: str
    ownership: Ownership
    lease: Lease
    here: Destination
    persistence: Persistence


@dataclass(slots=True)
class QueueState:
    """What is known of a queue, for whoever watches."""

    redis: int
    """Its number among the Redis, from 1."""
    queue: str
    ownership: Ownership
    owned: bool = False
    lines: int | None = None
    """Lines that wait, the batch in flight included; None: not known."""
    persistence: Persistence | None = None
    """What its Redis kept when we last came to own it."""

    @property
    def why(self) -> str | None:
        """What it waits for."""
        return self.ownership.trouble


@dataclass
class Pipeline:
    """Moves the events of some queues; counts what it moved."""

    settings: KafkastoreSettings
    place_of: Callable[[str], Place]
    until_empty: bool = False
    resolve: Resolve | None = None
    daily_keys: DailyKeys | None = None
    """With VISITOR_SECRET=daily."""
    batches: int = 0
    durations: Durations = field(default_factory=Durations)
    """From a batch's claim to its end."""
    lag_seconds: float = 0.0
    """Of the newest event in the last batch."""
    states: list[QueueState] = field(default_factory=list)
    published: Counter[str] = field(default_factory=Counter)
    """Records in Kafka, by topic."""
    dropped_bots: int = 0
    """Bots' events under BOTS=drop."""
    redis_went_back: int = 0
    """How often a Redis came back without the memory of a batch that is in Kafka."""
    _steps_back: dict[str, str] = field(default_factory=dict)
    """By which batch that was seen last, by queue id: it shows until the next one is forgotten."""
    _most_bytes: dict[str, int] = field(default_factory=dict)
    """What was learned of how large a topic's pieces may be."""

    def troubles(self) -> Iterator[QueueState]:
        """Give the queues of ours that wait for something that is wrong."""
        return (state for state in self.states if state.why is not None)

    async def run(self, queues: list[Queue], stop: asyncio.Event) -> None:
        """Move events until told to stop, or until the queues are empty."""
        redises = list(dict.fromkeys(queue.redis for queue in queues))
        shares = {redis: Share(redis, sum(queue.redis is redis for queue in queues)) for redis in redises}
        self.states = [
            QueueState(redises.index(queue.redis) + 1, queue.keys.list, Ownership(queue, shares[queue.redis]))
            for queue in queues
        ]
        beside = [asyncio.create_task(share.keep_fair()) for share in shares.values()]
        beside.append(asyncio.create_task(self._keep_measured(queues)))
        tending = {
            asyncio.create_task(self._tend(queue, state, stop))
            for queue, state in zip(queues, self.states, strict=True)
        }
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
            await end({*tending, *beside, stopped})
            for share in shares.values():
                with suppress(RedisError, OSError):
                    await share.leave()

    async def _tend(self, queue: Queue, state: QueueState, stop: asyncio.Event) -> None:
        move = partial(self._move, queue, state, stop)
        await state.ownership.hold(move, stop, until_empty=self.until_empty)

    async def _keep_measured(self, queues: list[Queue]) -> None:
        """Look how long the queues are, until cancelled."""
        while True:
            for queue, state in zip(queues, self.states, strict=True):
                try:
                    state.lines = await queue.length()
                except (RedisError, OSError):
                    state.lines = None
            await asyncio.sleep(MEASURE_SECONDS)

    async def _move(self, queue: Queue, state: QueueState, stop: asyncio.Event, lease: Lease) -> bool:
        """Move batches of a queue we own; True when there is nothing more to do."""
        state.owned = True
        try:
            return await self._move_owned(queue, state, stop, lease)
        finally:
            state.owned = False

    async def _move_owned(self, queue: Queue, state: QueueState, stop: asyncio.Event, lease: Lease) -> bool:
        cluster = await ensure_topics(self.settings)
        here = Destination(cluster, self.settings.kafka_prefix, self.settings.delivery)
        state.persistence = await queue.persistence()
        turn = Turn(queue, await queue.id(), state.ownership, lease, here, state.persistence)
        sifted = None
        while True:
            settings = await self._settings_for(turn, await queue.in_flight())
            opened = partial(open_publisher, settings, turn.queue_id, self._most_bytes)
            try:
                async with opened() as publisher:
                    if await self._move_by(publisher, turn, stop, sifted):
                        return stop.is_set() or self.until_empty
                sifted = None
            except RefusedError as refused:
                sifted = await sift(refused, opened, self._letter)
                _say_what_was_refused(queue, refused.outgoing, sifted)

    async def _move_by(
        self, publisher: Publisher, turn: Turn, stop: asyncio.Event, sifted: Outgoing | None
    ) -> bool:
        """Move batches by one publisher; False when the next ones are for another.

        `sifted` is what Kafka takes of the batch in flight, where it refused a part of it.
        """
        checkpoint = await publisher.last_checkpoint()
        await self._compare(turn, publisher, checkpoint)
        self._say_owned(turn, checkpoint)
        while not stop.is_set() and not turn.ownership.gives:
            if turn.lease.done():
                turn.lease.result()
            batch = await turn.queue.claim(turn.here)
            if batch is None:
                if self.until_empty:
                    return True
                await pause(stop, IDLE_SECONDS)
                continue
            checkpoint = await self._deliver(publisher, turn, batch, checkpoint, sifted)
            if publisher.worn_out or batch.destination != turn.here:
                return False
        return True

    async def _deliver(
        self,
        publisher: Publisher,
        turn: Turn,
        batch: Batch,
        checkpoint: Checkpoint | None,
        sifted: Outgoing | None,
    ) -> Checkpoint | None:
        """Publish a batch, unless it is the one that Kafka has already; then forget it."""
        began = time.monotonic()
        if checkpoint is not None and checkpoint.batch_id == batch.id:
            invalid = checkpoint.invalid
        else:
            if self.settings.claim_durable:
                await turn.queue.wait_until_durable(turn.persistence)
            if sifted is not None and sifted.batch.id == batch.id:
                outgoing = sifted
            else:
                outgoing = await self._outgoing(batch)
            dead = outgoing.dead
            self._stop_limit.check(dead, outgoing.most_frequent_reason)
            checkpoint = await publisher.publish(outgoing)
            self._stop_limit.passed(dead)
            invalid = outgoing.invalid
            self._count(outgoing)
        await turn.queue.forget(batch, invalid, turn.here if checkpoint else None)
        if invalid:
            log.error(
                "lines_kafka_cannot_take",
                queue=turn.queue.keys.list,
                lines=len(invalid),
                kept_in="click_invalid",
            )
        turn.ownership.goes_on()
        self.batches += 1
        self.durations.add(time.monotonic() - began)
        return checkpoint

    async def _outgoing(self, batch: Batch) -> Outgoing:
        if self.daily_keys is not None:
            await self.daily_keys.fetch(times_of(batch.lines))
        return self._enricher.outgoing(batch, _now_ms())

    def _count(self, outgoing: Outgoing) -> None:
        self.published.update(record.topic for record in outgoing.records.values())
        self.dropped_bots += outgoing.dropped_bots
        newest = max((record.timestamp_ms for record in outgoing.records.values()), default=None)
        if newest is not None:
            self.lag_seconds = max(_now_ms() - newest, 0) / 1000

    async def _settings_for(self, turn: Turn, in_flight: InFlight | None) -> KafkastoreSettings:
        """Decide how the next batch goes: one in flight as it was claimed. Raises ForeignBatchError."""
        if in_flight is None or in_flight.destination == turn.here:
            return self.settings
        there = in_flight.destination
        if there.place == turn.here.place:
            return self.settings.model_copy(update={"delivery": there.delivery})
        if self.resolve is None:
            raise ForeignBatchError(
                f"a batch was on its way to another Kafka (cluster {there.cluster}, prefix '{there.prefix}') and "
                "may be there: let a kafkastore with the old KAFKA_URL and KAFKA_PREFIX finish it, or say "
                "--resolve=publish (it goes here; it may be in both) or --resolve=forget (it goes nowhere else)"
            )
        log.warning("batch_resolved", queue=turn.queue.keys.list, batch=in_flight.id, how=self.resolve)
        if self.resolve == "forget" and (batch := await turn.queue.claim(turn.here)):
            await turn.queue.forget(batch)
        return self.settings

    async def _compare(self, turn: Turn, publisher: Publisher, checkpoint: Checkpoint | None) -> None:
        """Say so when Redis and Kafka remember different pasts: one of them went back."""
        if not publisher.transactions:
            return
        queue = turn.queue.keys.list
        in_flight = await turn.queue.in_flight()
        forgotten = await turn.queue.forgotten(turn.here)
        if checkpoint is None:
            if forgotten:
                log.warning("checkpoints_lost", queue=queue, last_batch=forgotten)
        elif checkpoint.batch_id not in (
            forgotten,
            in_flight and in_flight.id,
            self._steps_back.get(turn.queue_id),
        ):
            self._steps_back[turn.queue_id] = checkpoint.batch_id
            self.redis_went_back += 1
            log.error("redis_went_back", queue=queue, last_batch=checkpoint.batch_id)

    def _say_owned(self, turn: Turn, checkpoint: Checkpoint | None) -> None:
        if not turn.ownership.troubled:  # then the end of the trouble is what there is to say
            log.info(
                "queue_owned",
                queue=turn.queue.keys.list,
                last_batch=checkpoint and checkpoint.batch_id,
                if_redis_goes_back=turn.persistence.promise(claim_durable=self.settings.claim_durable),
            )

    def _letter(self, line: bytes, reason: str) -> Record:
        return self._enricher.refused(line, reason, _now_ms())

    @cached_property
    def _enricher(self) -> Enricher:
        return Enricher(self.settings, self.place_of, self._visitor_key)

    @cached_property
    def _visitor_key(self) -> Callable[[int], bytes] | None:
        secret = self.settings.visitor_secret
        if secret is None:
            return None
        if self.daily_keys is not None:
            return self.daily_keys.of
        key = secret.get_secret_value().encode()
        return lambda _seconds: key

    @cached_property
    def _stop_limit(self) -> StopLimit:
        return StopLimit(self.settings.stop_limit)


def _say_what_was_refused(queue: Queue, before: Outgoing, after: Outgoing) -> None:
    refused = sum(after.records.get(index) is not record for index, record in before.records.items())
    if refused:
        log.error("records_refused", queue=queue.keys.list, records=refused, batch=before.batch.id)
    else:
        log.info("pieces_made_smaller", queue=queue.keys.list)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
