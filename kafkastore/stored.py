"""What a reader of the topics sees: a record, which of them are wanted, and the line that shows one."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as a reader of the topic sees it."""

    topic: str
    """Without the prefix."""
    at_ms: int
    """The record's time: the click's."""
    value: dict[str, Any] | None
    """None for a dead letter, whose value is the raw line."""
    raw: bytes
    headers: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are shown: those that fit each of the sets that is not empty. Nothing said: all of them."""

    links: frozenset[str] = frozenset()
    """Numbers or slugs."""
    platforms: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    """ISO codes, upper-case."""
    bots: bool | None = None
    """Bots only, people only, or both."""

    def fits(self, record: Stored) -> bool:
        """Tell whether a record is shown. Dead letters tell nothing of all this: they fit where nothing is said."""
        value = record.value
        if value is None:
            return self == Wanted()
        link_id, slug = value.get("link_id"), value.get("slug")
        return (
            (not self.links or slug in self.links or (link_id is not None and str(link_id) in self.links))
            and (not self.platforms or value["platform"] in self.platforms)
            and (not self.countries or value["country"] in self.countries)
            and (self.bots is None or self.bots == (value["bot_class"] is not None))
        )


def as_json(record: Stored) -> str:
    """Give the value, or of a dead letter its topic, reason and line, as one line of JSON."""
    if record.value is not None:
        return json.dumps(record.value, ensure_ascii=False)
    line = record.raw.decode("utf-8", "replace")
    return json.dumps({"topic": record.topic, "reason": _reason(record), "line": line}, ensure_ascii=False)


def readable(record: Stored) -> str:
    """Give one line: `02:03:10 clicks link=1 summer-sale ios DE lag=0.1s`."""
    time = datetime.fromtimestamp(record.at_ms / 1000, UTC).strftime("%H:%M:%S")
    if record.value is None:
        return f"{time} {record.topic} {_reason(record)}: {record.raw[:80]!r}"
    value = record.value
    what: dict[str, list[Any]] = {
        "click": [f"link={value.get('link_id')}", value.get("slug")],
        "referral": [f"domain={value.get('domain')}", value.get("path")],
        "inapp": [f"event={value.get('event')}"],
        "orphan": [value.get("reason"), value.get("path")],
    }
    bot = value["bot_class"] and f"bot={value['bot_name'] or value['bot_class']}"
    said = [
        *what.get(value["event_type"], []),
        value["platform"],
        value["country"],
        bot,
        f"lag={value['klag_ms'] / 1000:.1f}s",
    ]
    return " ".join([time, record.topic, *(word for word in said if word)])


def _reason(record: Stored) -> str:
    return record.headers.get("reason", b"").decode("utf-8", "replace")
