"""replay: archived events go back into Kafka as they were, those that Kafka lacks, batch by batch in transactions.

Whatever ends it, a second run finds in Kafka what the first one put there. The producer is opened before Kafka is
read: it ends what a killed replay left open, and another one that still runs can commit nothing more.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from consumers.archive_file import Archived
from consumers.archive_range import ArchiveRange
from consumers.event_ids import EventIds
from consumers.identity import Seen, Side, seen
from consumers.kafka_range import OnProgress
from kafkastore.piece import bytes_of
from kafkastore.publisher import Publisher
from kafkastore.record import Record

QUEUE_ID: Final = "replay"
"""Of the transactional id."""

_MOST_RECORDS: Final = 4_000
_MOST_BYTES: Final = 8_000_000
"""In one transaction: a second of Kafka's work at most."""


class Replay:
    """Counts what is put back, and what cannot be."""

    def __init__(self, prefix: str, ids: EventIds, *, everything: bool) -> None:
        self._prefix = prefix
        self._ids = ids
        """What Kafka has, and what was put back."""
        self._everything = everything
        self.put_back: Counter[str] = Counter()
        """Records by topic, also those that only would be put back."""
        self.impossible = 0
        """Records that no kafkastore wrote: one without a value, or with a header without one."""

    async def note(self, records: AsyncIterator[list[Any]], stop: Callable[[], bool]) -> None:
        """Note what Kafka has."""
        async for some in records:
            if stop():
                return
            await self._ids.add(Side.KAFKA, [seen(record, self._prefix) for record in some])

    async def run(
        self,
        archive: ArchiveRange,
        publisher: Publisher | None,
        stop: Callable[[], bool],
        on_progress: OnProgress,
    ) -> bool:
        """Put back what is lacking, or only count it without a publisher; tells whether it came to the end.

        Raises SinkAwayError, PublishError.
        """
        async for batch in self._batches(archive, on_progress):
            if stop():
                return False
            if publisher is not None:
                await publisher.publish_records(dict(enumerate(batch)))
            self.put_back.update(record.topic for record in batch)
        return True

    async def _batches(self, archive: ArchiveRange, on_progress: OnProgress) -> AsyncIterator[list[Record]]:
        batch: list[Record] = []
        size = 0
        async for archived in archive.records(on_progress):
            for record in await self._lacking(archived):
                if batch and (len(batch) == _MOST_RECORDS or size + bytes_of(record) > _MOST_BYTES):
                    yield batch
                    batch, size = [], 0
                batch.append(record)
                size += bytes_of(record)
        if batch:
            yield batch

    async def _lacking(self, archived: list[Archived]) -> list[Record]:
        """Give what Kafka lacks, of an event that is archived twice only one."""
        events: dict[str, tuple[Seen, Archived]] = {}
        if self._everything:
            return [record for one in archived if (record := self._record(one))]
        for one in archived:
            event = seen(one, self._prefix)
            events.setdefault(event.event_id, (event, one))
        known = self._ids.known(list(events))
        new = [pair for event_id, pair in events.items() if event_id not in known]
        await self._ids.add(Side.ARCHIVE, [event for event, _ in new])
        return [record for _, one in new if (record := self._record(one))]

    def _record(self, one: Archived) -> Record | None:
        headers = [(name, content) for name, content in one.headers if content is not None]
        if one.value is None or len(headers) < len(one.headers):
            self.impossible += 1
            return None
        return Record(one.topic.removeprefix(self._prefix), one.key, one.value, one.timestamp, headers)
