"""Pieces of a batch: records of one partition that a broker takes, or refuses, together."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kafkastore.murmur2 import murmur2
from kafkastore.record import Record

PIECE_BYTES: Final = 512 * 1024
"""Of a piece, unless one record alone is larger: half of the broker's default limit of 1 MB."""

_PIECE_FRAME: Final = 61
_RECORD_FRAME: Final = 40
_HEADER_FRAME: Final = 10
"""What Kafka's format adds at most, in bytes: nine lengths, times and numbers of varying length a record."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some records of one partition, in their order."""

    topic: str
    """Without the prefix."""
    partition: int
    records: dict[int, Record]
    """By index in the batch."""

    @property
    def bytes(self) -> int:
        """Its size as sent, or a little less than this."""
        return _PIECE_FRAME + sum(map(bytes_of, self.records.values()))

    def halves(self) -> "tuple[Piece, Piece]":
        """Give the earlier and the later half of two records or more."""
        items = list(self.records.items())
        middle = len(items) // 2
        return (
            Piece(self.topic, self.partition, dict(items[:middle])),
            Piece(self.topic, self.partition, dict(items[middle:])),
        )


def bytes_of(record: Record) -> int:
    """Give the size of a record as sent, or a little more."""
    headers = sum(_HEADER_FRAME + len(name) + len(value) for name, value in record.headers)
    return _RECORD_FRAME + len(record.key or b"") + len(record.value) + headers


def partition_of(key: bytes, partitions: int) -> int:
    """Give the partition where every Kafka client looks for this key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def into_pieces(
    records: Mapping[int, Record], partitions: Mapping[str, int], most_bytes: Mapping[str, int]
) -> Iterator[Piece]:
    """Sort records, by index in the batch, into pieces that are in order within each partition.

    `partitions` says how many a topic has, `most_bytes` where a topic's pieces are to be smaller than usual.
    """
    by_partition: dict[tuple[str, int], dict[int, Record]] = defaultdict(dict)
    for index, record in records.items():
        count = partitions[record.topic]
        partition = index % count if record.key is None else partition_of(record.key, count)
        by_partition[record.topic, partition][index] = record
    for (topic, partition), own in by_partition.items():
        room = most_bytes.get(topic, PIECE_BYTES) - _PIECE_FRAME
        held: dict[int, Record] = {}
        size = 0
        for index, record in own.items():
            size += bytes_of(record)
            if held and size > room:
                yield Piece(topic, partition, held)
                held, size = {}, bytes_of(record)
            held[index] = record
        yield Piece(topic, partition, held)
