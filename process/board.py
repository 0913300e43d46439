"""A board of shared memory, a page a process: each pins up its samples, any of them can read all.

So whichever process of several is asked for `/metrics` answers for all of them. Made before processes part.
"""

import mmap
import struct
from collections.abc import Iterable, Iterator
from typing import Final
from zlib import crc32

import msgspec

from process.metrics import Sample

PIN_SECONDS: Final = 1.0
"""How old the figures of the other processes may be."""

_PAGE_BYTES: Final = 128 * 1024
"""Some 1,000 samples of 100 bytes; a collector has about 200."""

_HEADER: Final = struct.Struct("<II")
_ATTEMPTS: Final = 5
"""To read a page that is being written: that takes microseconds."""


class Board:
    """The samples of several processes."""

    def __init__(self, workers: int) -> None:
        self._pages = [mmap.mmap(-1, _PAGE_BYTES) for _ in range(workers)]

    def pin(self, worker: int, samples: Iterable[Sample]) -> None:
        """Replace what a worker has pinned up; raises ValueError for more than a page holds."""
        written = msgspec.msgpack.encode(list(samples))
        page = self._pages[worker]
        if _HEADER.size + len(written) > len(page):
            raise ValueError(f"{len(written)} bytes of samples are more than a page holds")
        page[_HEADER.size : _HEADER.size + len(written)] = written
        page[: _HEADER.size] = _HEADER.pack(len(written), crc32(written))

    def read(self) -> Iterator[Sample]:
        """Give all samples, each with the label `worker`."""
        for worker, page in enumerate(self._pages):
            for sample in _samples(page):
                labels = {**sample.labels, "worker": str(worker)}
                yield Sample(sample.family, sample.value, labels, sample.suffix)


def _samples(page: mmap.mmap) -> list[Sample]:
    """Read a page; one without samples, or one that is written each time we look, has none."""
    for _ in range(_ATTEMPTS):
        length, checksum = _HEADER.unpack(page[: _HEADER.size])
        written = page[_HEADER.size : _HEADER.size + length]
        if length and crc32(written) == checksum:
            return msgspec.msgpack.decode(written, type=list[Sample])
    return []
