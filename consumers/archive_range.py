"""What the archive has of a range of time: the files of its days, one after the other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from itertools import islice
from typing import Final

from consumers.archive_file import Archived, DamagedError, day_in, records_of
from consumers.archive_store import ArchiveStore
from consumers.identity import Range
from consumers.kafka_range import OnProgress
from process.logs import log

_AT_ONCE: Final = 4_000
"""Records given at once."""


class ArchiveRange:
    """Reads topics (with the prefix) of an archive. A file that is damaged is read as far as it goes, and named."""

    def __init__(self, store: ArchiveStore, topics: Sequence[str], when: Range) -> None:
        self._store = store
        self._topics = topics
        self._when = when
        self.damaged: list[str] = []

    async def records(self, on_progress: OnProgress) -> AsyncIterator[list[Archived]]:
        """Give records by and by, those of a partition and day in order; raises SinkAwayError."""
        files = [file for topic in self._topics for file in await self._files(topic)]
        whole, read = sum(size for _, size in files), 0
        for path, size in files:
            async for records in self._read(path):
                yield records
            read += size
            on_progress(read, whole)

    async def _files(self, topic: str) -> list[tuple[str, int]]:
        first, last = (moment.astimezone(UTC).date() for moment in (self._when.begin, self._when.end))
        days = [
            folder
            for folder in await self._store.folders(topic)
            if (day := day_in(folder)) is not None and first <= day <= last
        ]
        return [
            file for day in days for file in await self._store.files(day) if file[0].endswith(".jsonl.gz")
        ]

    async def _read(self, path: str) -> AsyncIterator[list[Archived]]:
        content = await self._store.read(path)
        if content is None:  # removed since it was listed
            return
        records = records_of(content)
        damages: list[DamagedError] = []

        def some() -> list[Archived]:
            found = []
            try:
                for record in islice(records, _AT_ONCE):
                    found.append(record)  # noqa: PERF402 (what came before the damage is kept)
            except DamagedError as error:
                damages.append(error)
            return found

        begin, end = self._when.begin_ms, self._when.end_ms
        while found := await asyncio.to_thread(some):
            yield [record for record in found if begin <= record.timestamp < end]
        for damage in damages:
            self.damaged.append(path)
            log.error("archive_file_damaged", file=path, why=str(damage))
