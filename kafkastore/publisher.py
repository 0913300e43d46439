"""The Kafka end: one transaction per batch, its records and its checkpoint together.

The last checkpoint answers the question whether a batch found in flight is in Kafka already. After any error a
publisher is thrown away: the next one with the same transactional id ends whatever was left open, and fences the
old one should it still live.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced, UnknownError

from kafkastore.checkpoint import CHECKPOINTS, Checkpoint, last_checkpoint
from kafkastore.connection import PublishError, connection, start
from kafkastore.outgoing import Outgoing
from kafkastore.piece import PIECE_BYTES, Piece, into_pieces, partition_of
from kafkastore.record import Record
from kafkastore.refusal import TOO_LARGE, Answer, RefusedError, Verdict, answers_of
from kafkastore.settings import KafkastoreSettings
from process.logs import log
from process.tasks import Answer as Result
from process.tasks import within

TRANSACTION_TIMEOUT_MS: Final = 15_000
"""How long the broker keeps the transaction of a process that died, and read_committed readers wait, at most."""

PUBLISH_SECONDS: Final = 10.0
"""For one batch; below the broker's time-out, so that we give up first."""

START_SECONDS: Final = 10.0
"""For a producer to start: aiokafka itself would wait without limit for a coordinator that is busy."""

STOP_SECONDS: Final = 2.0
"""For a producer to stop; with the collector's 3 s rule the whole process is gone within 10 s."""

MOST_RECORDS: Final = 1_000_000_000
"""For one producer: aiokafka's sequence numbers break at 2^31 records of a partition."""


class Publisher:
    """One producer, for one queue, until the first error."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        queue_id: str,
        settings: KafkastoreSettings,
        most_bytes: dict[str, int],
    ) -> None:
        self._producer = producer
        self._queue_id = queue_id
        self._settings = settings
        self.transactions = settings.delivery == "exactly_once"
        self._partitions: dict[str, int] = {}
        self._most_bytes = most_bytes
        self._sent = 0

    @property
    def worn_out(self) -> bool:
        """Whether the next batch should go by a new publisher."""
        return self._sent > MOST_RECORDS

    async def publish(self, outgoing: Outgoing) -> Checkpoint | None:
        """Put a batch into Kafka, whole, and give its checkpoint, which there is only with transactions.

        Raises PublishError or RefusedError, after which this publisher is done.
        """
        return await _within(PUBLISH_SECONDS, self._publish(outgoing), "publishing")

    async def publish_records(self, records: Mapping[int, Record]) -> None:
        """Put records into Kafka, all in one transaction where there are any, without a checkpoint.

        Raises PublishError, also where Kafka refuses one; then this publisher is done.
        """
        await _within(PUBLISH_SECONDS, self._publish_records(records), "publishing")

    async def attempt(self, pieces: Sequence[Piece]) -> list[Answer]:
        """Try what Kafka takes, in a transaction left open; raises PublishError. This publisher is done.

        Without transactions, what is taken has arrived.
        """
        return await _within(PUBLISH_SECONDS, self._attempt(pieces), "an attempt to publish")

    async def last_checkpoint(self) -> Checkpoint | None:
        """Read which batch of this queue was the last; raises PublishError when that cannot be told."""
        if not self.transactions:
            return None
        return await _within(
            TRANSACTION_TIMEOUT_MS / 1000 + START_SECONDS, self._last_checkpoint(), "the checkpoint"
        )

    async def pieces(self, records: Mapping[int, Record]) -> list[Piece]:
        """Sort records into pieces; raises PublishError."""
        return await _within(PUBLISH_SECONDS, self._pieces(records), "asking for partitions")

    async def _publish(self, outgoing: Outgoing) -> Checkpoint | None:
        left = {index: one for index, one in outgoing.records.items() if index not in outgoing.arrived}
        pieces = await self._pieces(left)
        if not self.transactions:
            self._all_taken(outgoing, await self._attempt(pieces))
            return None
        await self._producer.begin_transaction()
        sent = [await self._send(piece) for piece in pieces]
        checkpoint = Checkpoint(outgoing.batch.id, time.time_ns() // 1_000_000, outgoing.invalid)
        sent.append(await self._send_checkpoint(checkpoint))
        # commit_transaction() would commit although a record was refused: look at every answer first.
        *results, noted = await asyncio.gather(*sent, return_exceptions=True)
        if isinstance(noted, BaseException):
            raise noted
        self._all_taken(outgoing, self._learn(answers_of(pieces, results)))
        await self._producer.commit_transaction()
        return checkpoint

    async def _publish_records(self, records: Mapping[int, Record]) -> None:
        answers = await self._attempt(await self._pieces(records))
        for answer in answers:
            if answer.verdict is not Verdict.TAKEN:
                raise PublishError(f"Kafka refuses a record of {answer.piece.topic}: {answer.error!r}")
        if self.transactions:
            await self._producer.commit_transaction()

    def _all_taken(self, outgoing: Outgoing, answers: Sequence[Answer]) -> None:
        if any(answer.verdict is not Verdict.TAKEN for answer in answers):
            raise RefusedError(outgoing, answers, transactions=self.transactions)

    async def _attempt(self, pieces: Sequence[Piece]) -> list[Answer]:
        if self.transactions:
            await self._producer.begin_transaction()
        sent = [await self._send(piece) for piece in pieces]
        return self._learn(answers_of(pieces, await asyncio.gather(*sent, return_exceptions=True)))

    async def _send(self, piece: Piece) -> Any:
        """Hand a piece to aiokafka; gives a future of the broker's answer."""
        batch = self._producer.create_batch()
        for one in piece.records.values():
            if not batch.append(
                key=one.key, value=one.value, timestamp=one.timestamp_ms, headers=one.headers
            ):
                raise PublishError(f"a piece of {piece.bytes} bytes is too large for aiokafka")
        self._sent += len(piece.records)
        return await self._producer.send_batch(batch, self._topic(piece.topic), partition=piece.partition)

    async def _send_checkpoint(self, checkpoint: Checkpoint) -> Any:
        topic, partition = await self._checkpoint_partition()
        value = msgspec.json.encode(checkpoint)
        return await self._producer.send(topic, value, self._queue_id.encode(), partition)

    async def _last_checkpoint(self) -> Checkpoint | None:
        return await last_checkpoint(self._settings, self._queue_id, await self._checkpoint_partition())

    async def _checkpoint_partition(self) -> TopicPartition:
        count = await self._count(CHECKPOINTS)
        return TopicPartition(self._topic(CHECKPOINTS), partition_of(self._queue_id.encode(), count))

    async def _pieces(self, records: Mapping[int, Record]) -> list[Piece]:
        partitions = {topic: await self._count(topic) for topic in {one.topic for one in records.values()}}
        return list(into_pieces(records, partitions, self._most_bytes))

    async def _count(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = len(await self._producer.partitions_for(self._topic(topic)))
        return self._partitions[topic]

    def _learn(self, answers: list[Answer]) -> list[Answer]:
        """Remember what was too large for a topic, by several records together: its pieces are smaller now."""
        for answer in answers:
            piece = answer.piece
            if isinstance(answer.error, TOO_LARGE) and len(piece.records) > 1:
                known = self._most_bytes.get(piece.topic, PIECE_BYTES)
                self._most_bytes[piece.topic] = min(known, piece.bytes // 2)
        return answers

    def _topic(self, name: str) -> str:
        return self._settings.kafka_prefix + name


@asynccontextmanager
async def open_publisher(
    settings: KafkastoreSettings, queue_id: str, most_bytes: dict[str, int] | None = None
) -> AsyncIterator[Publisher]:
    """Start a producer for a queue, fencing any before it; raises PublishError.

    `most_bytes` is what publishers of a process learn of how large a topic's pieces may be.
    """
    producer = await _start(settings, queue_id)
    try:
        yield Publisher(producer, queue_id, settings, {} if most_bytes is None else most_bytes)
    finally:
        # Every answer has been waited for, and what was left open must not be committed: there is nothing to flush.
        await _throw_away(producer)


async def _start(settings: KafkastoreSettings, queue_id: str) -> AIOKafkaProducer:
    common: dict[str, Any] = {
        **connection(settings),
        "acks": "all",
        "max_batch_size": PIECE_BYTES,
        "request_timeout_ms": int(PUBLISH_SECONDS * 1000),
    }
    if settings.delivery == "exactly_once":
        producer = AIOKafkaProducer(
            transactional_id=f"{settings.kafka_prefix}onward-{queue_id}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            **common,
        )
        try:
            return await _started(producer, settings)
        except PublishError as error:
            if isinstance(error.__cause__, UnknownError):
                raise PublishError(
                    "this broker knows no transactions: set DELIVERY=at_least_once for it"
                ) from error
            raise
    try:
        return await _started(AIOKafkaProducer(enable_idempotence=True, **common), settings)
    except PublishError as error:
        if not isinstance(error.__cause__, UnknownError):
            raise
        # Some brokers that speak Kafka's protocol know no idempotent producer: a retried request may double there.
        log.warning("broker_without_idempotence", cure="use Apache Kafka where every event counts")
        return await _started(AIOKafkaProducer(**common), settings)


async def _started(producer: AIOKafkaProducer, settings: KafkastoreSettings) -> AIOKafkaProducer:
    try:
        await start(producer, settings, START_SECONDS)
    except BaseException:
        await _throw_away(producer)
        raise
    return producer


async def _throw_away(producer: AIOKafkaProducer) -> None:
    """End a producer without flushing it: stop() would wait for brokers that are down, without limit."""
    producer._closed = True  # noqa: SLF001 (aiokafka has no other way to end without a flush, #1101)
    sender = producer._sender  # noqa: SLF001
    task = sender.sender_task
    if task is not None:
        task.cancel()
    await producer.client.close()
    if task is not None:
        await asyncio.wait({task}, timeout=STOP_SECONDS)


async def _within(seconds: float, step: Coroutine[Any, Any, Result], what: str) -> Result:
    """Wait for a step of aiokafka's, a stated time at most; any error of Kafka's becomes a PublishError."""
    try:
        return await within(seconds, step)
    except ProducerFenced as error:
        raise PublishError(
            f"{what} failed: another owner has taken this queue over, or a transaction ran out of time ({error!r})"
        ) from error
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise PublishError(f"{what} failed: {error!r}") from error
