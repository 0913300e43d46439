"""What goes out of a batch: events as records, lines that are none as dead letters, and the few that cannot go."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from collector.event import Event, MalformedEventError
from geoip.place import Place
from kafkastore.dead_letter import dead_letter
from kafkastore.enrichment import Policy, Source, enrich
from kafkastore.queue import Batch
from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings
from process.logs import log

MOST_BYTES: Final = 900_000
"""Of a value or a dead letter: a broker's default limit is 1,048,588 for a record with its key, headers and frame."""

TOGETHER: Final = 100
"""Events that are enriched together, for the sake of the processor's caches; 1,000 do not fit (measured)."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A batch on its way to Kafka."""

    batch: Batch
    records: dict[int, Record]
    """By index in the batch. A bot's event that BOTS=drop leaves out has none."""
    invalid: tuple[int, ...] = ()
    """Lines that Kafka takes in no form: they stay in Redis, in `click_invalid`."""
    dropped_bots: int = 0
    arrived: frozenset[int] = frozenset()
    """Records that are in Kafka already, where there are no transactions to keep them out."""

    @property
    def dead(self) -> list[bool]:
        """Tell of every line whether it comes to nothing but a dead letter, or not even that."""
        letters = {index for index, record in self.records.items() if record.topic.endswith(".dead")}
        lost = letters.union(self.invalid)
        return [index in lost for index in range(len(self.batch.lines))]

    @property
    def most_frequent_reason(self) -> str:
        """Why most of its dead letters are dead; "" without any."""
        letters = (record for record in self.records.values() if record.topic.endswith(".dead"))
        reasons = Counter(dict(letter.headers)["reason"].decode() for letter in letters)
        return reasons.most_common(1)[0][0] if reasons else ""


class Enricher:
    """Turns lines into records."""

    def __init__(
        self,
        settings: KafkastoreSettings,
        place_of: Callable[[str], Place],
        visitor_key: Callable[[int], bytes] | None = None,
    ) -> None:
        self._place_of = place_of
        self._topics = settings.topics
        self._policy = Policy(
            value_format=settings.value_format,
            visitor_key=visitor_key,
            bots=settings.bots,
            ip_privacy=settings.ip_privacy,
            honor_gpc=settings.gpc == "honor",
            honor_dnt=settings.dnt == "honor",
        )

    def outgoing(self, batch: Batch, now_ms: int) -> Outgoing:
        """Give what goes out of a batch."""
        invalid = tuple(index for index, line in enumerate(batch.lines) if len(line) > MOST_BYTES)
        found: dict[int, Record | None] = {}
        for first in range(0, len(batch.lines), TOGETHER):
            found |= self._records(batch, range(first, min(first + TOGETHER, len(batch.lines))), now_ms)
        records = {index: record for index, record in found.items() if record is not None}
        return Outgoing(batch, records, invalid, dropped_bots=len(found) - len(records))

    def refused(self, line: bytes, reason: str, now_ms: int) -> Record:
        """Give the dead letter of an event that Kafka refused."""
        topic = Event.decode(
            line, self._topics
        ).topic  # it was an event: what was none, is a dead letter already
        return dead_letter(line, reason=reason, step="publish", topic=topic, at_ms=now_ms)

    def _records(self, batch: Batch, indexes: range, now_ms: int) -> dict[int, Record | None]:
        """Give the records of some lines, in order.

        A line that is no event has its dead letter, and a bot's that is left out has None.
        """
        records: dict[int, Record | None] = {}
        events: list[tuple[Event, Source]] = []
        for index in indexes:
            line = batch.lines[index]
            if len(line) > MOST_BYTES:
                continue
            records[index] = None  # has its place among the others
            try:
                events.append((Event.decode(line, self._topics), Source(batch.id, index)))
            except MalformedEventError as error:
                records[index] = dead_letter(
                    line, reason=error.reason, step="decode", topic=error.topic, at_ms=now_ms
                )
        for (event, source), record in zip(events, self._enriched(events, batch, now_ms), strict=True):
            records[source.index] = (
                record
                if record is None or len(record.value) <= MOST_BYTES
                else dead_letter(
                    batch.lines[source.index],
                    reason="too large for Kafka",
                    step="enrich",
                    topic=event.topic,
                    at_ms=now_ms,
                )
            )
        return records

    def _enriched(
        self, events: Sequence[tuple[Event, Source]], batch: Batch, now_ms: int
    ) -> list[Record | None]:
        """Enrich some events; a fault of ours costs the one it strikes, and none of its neighbours."""
        try:
            return self._enrich(events, now_ms)
        except MemoryError:
            raise  # it is no fault of the event
        except Exception:  # noqa: BLE001 (whatever it is: the batch would meet it again and again)
            log.exception("event_not_enriched", batch=batch.id)
            return [self._enriched_alone(*one, batch, now_ms) for one in events]

    def _enriched_alone(self, event: Event, source: Source, batch: Batch, now_ms: int) -> Record | None:
        try:
            (record,) = self._enrich([(event, source)], now_ms)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 (said above)
            reason = f"fault: {type(error).__name__}"
            line = batch.lines[source.index]
            return dead_letter(line, reason=reason, step="enrich", topic=event.topic, at_ms=now_ms)
        return record

    def _enrich(self, events: Sequence[tuple[Event, Source]], now_ms: int) -> list[Record | None]:
        return enrich(events, now_ms=now_ms, place_of=self._place_of, policy=self._policy)
