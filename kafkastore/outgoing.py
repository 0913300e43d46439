"""What goes out of a batch: events as records, lines that are none as dead letters, and the few that cannot go."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from collector.event import Event, MalformedEventError
from geoip.place import Place
from kafkastore.dead_letter import dead_letter
from kafkastore.enrichment import Policy, Source, enrich
from kafkastore.queue import Batch
from kafkastore.record import Record
from kafkastore.settings import KafkastoreSettings

MOST_BYTES: Final = 900_000
"""Of a value or a dead letter: a broker's default limit is 1,048,588 for a record with its key, headers and frame."""


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
        records: dict[int, Record] = {}
        invalid = []
        dropped = 0
        for index, line in enumerate(batch.lines):
            if len(line) > MOST_BYTES:
                invalid.append(index)
            elif found := self._record(line, Source(batch.id, index), now_ms):
                records[index] = found
            else:
                dropped += 1
        return Outgoing(batch, records, tuple(invalid), dropped)

    def refused(self, line: bytes, reason: str, now_ms: int) -> Record:
        """Give the dead letter of an event that Kafka refused."""
        topic = Event.decode(
            line, self._topics
        ).topic  # it was an event: what was none, is a dead letter already
        return dead_letter(line, reason=reason, step="publish", topic=topic, at_ms=now_ms)

    def _record(self, line: bytes, source: Source, now_ms: int) -> Record | None:
        try:
            event = Event.decode(line, self._topics)
        except MalformedEventError as error:
            return dead_letter(line, reason=error.reason, step="decode", topic=error.topic, at_ms=now_ms)
        record = enrich(event, source, now_ms=now_ms, place_of=self._place_of, policy=self._policy)
        if record is not None and len(record.value) > MOST_BYTES:
            return dead_letter(
                line, reason="too large for Kafka", step="enrich", topic=event.topic, at_ms=now_ms
            )
        return record
