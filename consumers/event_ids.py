"""Event ids by who has them, in a table on disk that goes when it is closed: the memory is SQLite's cache, 64 MB."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from consumers.identity import STORED_BY, Seen, Side


def _mask_of(sides: Iterable[Side]) -> int:
    return sum(side.bit for side in sides)


_CACHE_KIB: Final = 65_536

_ADD: Final = """
INSERT INTO ids (event_id, kind, topic, has) VALUES (?, ?, ?, ?)
ON CONFLICT (event_id) DO UPDATE SET has = has | excluded.has, kind = max(kind, excluded.kind)
"""

_STORED_BY: Final = " ".join(
    ["CASE kind", *(f"WHEN {kind:d} THEN {_mask_of(sides)}" for kind, sides in STORED_BY.items()), "END"]
)
_LACKS: Final = f"({_STORED_BY} & :sides & ~has)"


@dataclass(frozen=True, slots=True)
class Difference:
    """An event that one side has and another, which stores such events, lacks."""

    event_id: str
    topic: str
    has: tuple[Side, ...]
    lacks: tuple[Side, ...]


class EventIds:
    """The ids that have been seen."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.records: Counter[Side] = Counter()
        """Records by side; an event may be there in several."""

    async def add(self, side: Side, events: Sequence[Seen]) -> None:
        """Note that a side has events."""
        rows = [(event.event_id, int(event.kind), event.topic, side.bit) for event in events]
        self.records[side] += len(rows)
        await asyncio.to_thread(self._add, rows)

    def _add(self, rows: Sequence[tuple[str, int, str, int]]) -> None:
        self._database.execute("BEGIN")  # a commit a row would cost 300 µs
        self._database.executemany(_ADD, rows)
        self._database.execute("COMMIT")

    def known(self, event_ids: Sequence[str]) -> set[str]:
        """Give those of some ids that were seen."""
        asked = "SELECT event_id FROM ids WHERE event_id IN (SELECT value FROM json_each(?))"
        return {event_id for (event_id,) in self._database.execute(asked, (json.dumps(event_ids),))}

    def events(self, side: Side) -> int:
        """Tell how many events a side has."""
        return self._number("SELECT count(*) FROM ids WHERE has & :side", {"side": side.bit})

    def lacking(self, side: Side) -> int:
        """Tell how many a side lacks that another one has."""
        return self._number(f"SELECT count(*) FROM ids WHERE {_LACKS}", {"sides": side.bit})  # noqa: S608 (our own text)

    def differences(self, sides: Sequence[Side]) -> Iterator[Difference]:
        """Give the events that not all of these sides have that store such."""
        asked = f"SELECT event_id, topic, has, {_LACKS} FROM ids WHERE {_LACKS} ORDER BY event_id"  # noqa: S608
        for event_id, topic, has, lacks in self._database.execute(asked, {"sides": _mask_of(sides)}):
            yield Difference(event_id, topic, _sides(has), _sides(lacks))

    def _number(self, asked: str, parameters: dict[str, int]) -> int:
        (number,) = self._database.execute(asked, parameters).fetchone()
        return int(number)


@contextmanager
def event_ids() -> Iterator[EventIds]:
    """Open an empty table, in the folder for temporary files."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # no name: gone when closed
    try:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        database.execute(
            "CREATE TABLE ids (event_id TEXT PRIMARY KEY, kind INTEGER, topic TEXT, has INTEGER) WITHOUT ROWID"
        )
        yield EventIds(database)
    finally:
        database.close()


def _sides(mask: int) -> tuple[Side, ...]:
    return tuple(side for side in Side if mask & side.bit)
