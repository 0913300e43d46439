"""Positions of the archive, beside its files: where each partition goes on, moved by compare-and-set.

A position is a file whose number is one higher than the last one's, made only if there is none of that number: of
two members that saw the same position one moves it. An object store can do this, and a folder, too.

A span of records is claimed before its files are written, and the claim says where it ends. So whoever finds a claim
without knowing what came of it writes the very same records under the very same names, where they are not there yet,
and no file ever overlaps another: not a killed member's, and not that of one that stood still for an hour.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from aiokafka import TopicPartition

from consumers.archive_store import ArchiveStore
from consumers.sink import MovedError, SinkAwayError

FOLDER: Final = "_positions"

_KEPT: Final = 8
"""Numbers of a partition: a listing that is overtaken by this many moves might miss the last one."""

_ATTEMPTS: Final = 5
"""At a position that moves while it is read."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition goes on."""

    number: int
    next_offset: int
    """Everything before it is in the archive."""
    open_until: int | None = None
    """Where the claimed span ends that begins there, if one is claimed."""


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    next_offset: int
    open_until: int | None = None


_decode: Final = msgspec.json.Decoder(_Value).decode


class ArchivePositions:
    """The positions of one cluster's partitions. Each method may raise SinkAwayError."""

    def __init__(self, store: ArchiveStore, cluster_id: str) -> None:
        self._store = store
        self._folder = f"{FOLDER}/{cluster_id}"

    async def read(self, beginnings: Mapping[TopicPartition, int]) -> dict[TopicPartition, Position]:
        """Give positions; a partition never read gets its beginning for one."""
        topics = sorted({partition.topic for partition in beginnings})
        listed = await asyncio.gather(*(self._store.files(f"{self._folder}/{topic}") for topic in topics))
        numbers: dict[str, list[int]] = {}
        for path, _ in (file for files in listed for file in files):
            folder, _, name = path.rpartition("/")
            numbers.setdefault(folder, []).append(_number_of(name))
        found = await asyncio.gather(
            *(
                self._one(partition, beginning, numbers.get(self._folder_of(partition), []))
                for partition, beginning in beginnings.items()
            )
        )
        return dict(zip(beginnings, found, strict=True))

    async def move(
        self, partition: TopicPartition, old: Position, next_offset: int, open_until: int | None = None
    ) -> Position:
        """Give the position that follows another; raises MovedError where that is not the last one."""
        new = Position(old.number + 1, next_offset, open_until)
        where = f"{partition.topic}/{partition.partition}"
        if not await self._create(partition, new):
            raise MovedError(f"{where} was moved to its position {new.number} already")
        numbers = await self._numbers(partition)
        if max(numbers, default=0) > new.number:  # ours had been moved long ago, and then removed
            await self._remove(partition, [new.number])
            raise MovedError(f"{where} is at its position {max(numbers)} already")
        await self._remove(partition, (number for number in numbers if number <= new.number - _KEPT))
        return new

    async def _one(self, partition: TopicPartition, beginning: int, numbers: list[int]) -> Position:
        for _ in range(_ATTEMPTS):
            if not numbers:
                try:
                    return await self.move(partition, Position(0, 0), beginning)
                except MovedError:
                    pass
            else:
                content = await self._store.read(self._path_of(partition, max(numbers)))
                if content is not None:
                    return self._position(partition, max(numbers), content)
            numbers = await self._numbers(partition)
        raise SinkAwayError(f"the position of {partition.topic}/{partition.partition} does not stand still")

    def _position(self, partition: TopicPartition, number: int, content: bytes) -> Position:
        try:
            value = _decode(content)
        except msgspec.MsgspecError as error:
            raise SinkAwayError(f"{self._path_of(partition, number)} is no position: {error}") from error
        return Position(number, value.next_offset, value.open_until)

    async def _create(self, partition: TopicPartition, position: Position) -> bool:
        value = msgspec.json.encode(_Value(position.next_offset, position.open_until))
        return await self._store.create(self._path_of(partition, position.number), value)

    async def _numbers(self, partition: TopicPartition) -> list[int]:
        files = await self._store.files(self._folder_of(partition))
        return [_number_of(path.rpartition("/")[2]) for path, _ in files]

    async def _remove(self, partition: TopicPartition, numbers: Iterable[int]) -> None:
        await self._store.delete([self._path_of(partition, number) for number in numbers])

    def _folder_of(self, partition: TopicPartition) -> str:
        return f"{self._folder}/{partition.topic}/{partition.partition}"

    def _path_of(self, partition: TopicPartition, number: int) -> str:
        return f"{self._folder_of(partition)}/{number:012}.json"


def _number_of(name: str) -> int:
    """Give a position's number, 0 for a file that is none."""
    digits = name.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0
