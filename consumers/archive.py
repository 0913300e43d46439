"""archive: the second copy of what Kafka has, as compressed JSON lines in a folder or an object store.

Records are gathered until they make a file worth having, and are in no file until then: what is gathered when a
member dies is read again. Each is in the archive once; see `archive_positions` for why.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from pydantic import SecretStr

from consumers.archive_file import path_of
from consumers.archive_positions import ArchivePositions, Position
from consumers.archive_store import ArchiveStore
from consumers.gathered import Gathered
from consumers.sink import Batch, MovedError, Span

NAME: Final = "archive"

_HELD: Final = 4
"""Files' worth of memory: when all partitions together hold more, the largest are written early."""

_WRITTEN_AT_ONCE: Final = 8


class Archive:
    """The sink of `consumers run archive`."""

    rest_seconds = 0.5

    def __init__(self, url: SecretStr, topics: Sequence[str], *, seconds: int, file_bytes: int) -> None:
        self.topics = topics
        self._store = ArchiveStore(url)
        self._seconds = seconds
        self._file_bytes = file_bytes
        self._cluster_id = ""
        self._positions: dict[TopicPartition, Position] = {}
        self._gathered: dict[TopicPartition, Gathered] = {}

    async def positions(
        self, cluster_id: str, beginnings: Mapping[TopicPartition, int]
    ) -> Mapping[TopicPartition, int]:
        """Read where each partition goes on: behind what is gathered, where nobody has moved on meanwhile."""
        if cluster_id != self._cluster_id:
            self._gathered.clear()
            self._cluster_id = cluster_id
        self._positions = await ArchivePositions(self._store, cluster_id).read(beginnings)
        self._gathered = {
            partition: gathered
            for partition, gathered in self._gathered.items()
            if partition in beginnings and _fits(gathered, self._positions[partition])
        }
        return {
            partition: self._gathered[partition].end if partition in self._gathered else position.next_offset
            for partition, position in self._positions.items()
        }

    async def write(self, batch: Batch) -> Sequence[tuple[Any, str]]:
        """Gather a batch, and write what is due; whatever a record holds can be written."""
        self._cluster_id = batch.cluster_id
        for span in batch.spans:
            await self._gather(span)
        await self.settle(everything=False)
        return ()

    async def bury(self, batch: Batch, reason: str) -> None:
        """Never asked for: nothing is refused."""
        raise AssertionError(f"{batch.size} records were refused: {reason}")

    async def settle(self, *, everything: bool) -> None:
        """Write what is due, or everything that is gathered."""
        ready = {partition: gathered for partition, gathered in self._gathered.items() if gathered.days}
        due = {
            partition
            for partition, gathered in ready.items()
            if everything or gathered.age_seconds >= self._seconds or gathered.size >= self._file_bytes
        }
        held = sum(gathered.size for partition, gathered in ready.items() if partition not in due)
        for partition in sorted(ready.keys() - due, key=lambda one: ready[one].size, reverse=True):
            if held <= _HELD * self._file_bytes:
                break
            due.add(partition)
            held -= ready[partition].size
        await self._write_all(due)

    async def close(self) -> None:
        """Do nothing: what is gathered is read again."""

    async def _gather(self, span: Span) -> None:
        """Add a span to what is gathered; where a claim is open it is cut at the claim's end."""
        partition, records, begin = span.partition, span.records, span.begin
        until = self._positions[partition].open_until
        if until is not None and span.end >= until:
            own = [record for record in records if record.offset < until]
            await self._add(partition, own, begin, until)
            await self._write(partition)
            records, begin = records[len(own) :], until
        await self._add(partition, records, begin, span.end)

    async def _add(self, partition: TopicPartition, records: Sequence[Any], begin: int, end: int) -> None:
        gathered = self._gathered.setdefault(partition, Gathered(begin, begin))
        if begin != gathered.end:
            raise MovedError(f"{partition.topic}/{partition.partition} is not at {begin}")
        # zlib lets go of the interpreter: brokers are answered while it works.
        await asyncio.to_thread(gathered.add, records, end)

    async def _write_all(self, partitions: Iterable[TopicPartition]) -> None:
        """Write some partitions' files, a few at once; what is written stays, whatever becomes of the others."""
        room = asyncio.Semaphore(_WRITTEN_AT_ONCE)

        async def write(partition: TopicPartition) -> None:
            async with room:
                await self._write(partition)

        outcomes = await asyncio.gather(*map(write, partitions), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _write(self, partition: TopicPartition) -> None:
        """Claim a span, write its files, move on."""
        gathered, position = self._gathered[partition], self._positions[partition]
        if position.open_until is not None and gathered.end != position.open_until:
            return  # it is another's claim, and not read to its end yet
        positions = ArchivePositions(self._store, self._cluster_id)
        if position.open_until is None:
            position = await positions.move(partition, position, gathered.begin, gathered.end)
            self._positions[partition] = position
        for name, day in gathered.days.items():
            claim = (self._cluster_id, position.number)
            path = path_of(partition, name, (day.first, day.last), claim)
            await self._store.create(path, await asyncio.to_thread(day.file))
        self._positions[partition] = await positions.move(partition, position, gathered.end)
        del self._gathered[partition]


def _fits(gathered: Gathered, position: Position) -> bool:
    """Tell whether what is gathered is what comes next."""
    return gathered.begin == position.next_offset and position.open_until in (None, gathered.end)
