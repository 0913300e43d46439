"""A dead letter: a line that is no event, kept whole with the reason, beside the topic it was meant for."""

from collector.event import CLICKS, utc_time
from kafkastore.record import Record


def dead_letter(line: bytes, *, reason: str, step: str, topic: str | None, at_ms: int) -> Record:
    """Give the record for `<topic>.dead`; where the topic cannot be told, for `clicks.dead`."""
    meant_for = topic or CLICKS
    return Record(
        topic=f"{meant_for}.dead",
        key=None,
        value=line,
        timestamp_ms=at_ms,
        headers=[
            ("reason", reason.encode()),
            ("step", step.encode()),
            ("time", utc_time(at_ms).encode()),
            ("topic", meant_for.encode()),
        ],
    )
