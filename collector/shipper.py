"""The shipper: journals → Redis. Every queue has a lane of its own, and events take them in turn.

What a process left behind is shipped by the next one, see adoption.py.
"""

import asyncio
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from collector.adoption import Adoption
from collector.breaker import LONGEST_OPEN_SECONDS, SHORTEST_OPEN_SECONDS
from collector.lane import Durability, Lane
from collector.open_journal import OpenJournal
from collector.shipment import QueueEnd
from collector.space import Space

TURN_EVENTS: Final = 100
"""Events that go by one lane before the next one's turn: enough to be shipped together, few enough to share work."""


class Shipper:
    """Takes events down and ships them."""

    def __init__(
        self,
        ends: Sequence[QueueEnd],
        directory: Path,
        space: Space,
        *,
        durability: Durability = "journal",
        keep_seconds: float,
        first: int = 0,
    ) -> None:
        """Open a journal for every end, the turn being with number `first`; raises OSError."""
        # With one Redis there is nobody to go to meanwhile: it is tried again soon.
        longest = LONGEST_OPEN_SECONDS if len(ends) > 1 else SHORTEST_OPEN_SECONDS
        self.lanes = [
            Lane(
                OpenJournal(directory, space, synced=durability != "journal"),
                end,
                space,
                durability=durability,
                keep_seconds=keep_seconds,
                longest_open_seconds=longest,
            )
            for end in ends
        ]
        self.adoption = Adoption(directory, ends, space, keep_seconds=keep_seconds)
        self._turns = cycle(self.lanes)
        self._lane = next(islice(self._turns, first % len(self.lanes), None))
        self._left = TURN_EVENTS

    def append(self, *lines: bytes) -> Lane:
        """Write events down and have them shipped; raises what OpenJournal.append does. Gives the lane they took."""
        if self._left <= 0 or self._lane.breaker.is_open:
            self._next_turn()
        self._left -= len(lines)
        self._lane.append(*lines)
        return self._lane

    def probe(self) -> None:
        """Raise OSError if nothing could be written down now: asked when no visitor's event tells."""
        self._lane.journal.probe()

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to ship, until the tasks are ended."""
        ships = [lane.ship() for lane in self.lanes]
        return [asyncio.create_task(ship) for ship in (*ships, self.adoption.ship())]

    async def finish(self) -> None:
        """Ship what is left of our own journals."""
        await asyncio.gather(*(lane.finish() for lane in self.lanes))

    def close(self) -> None:
        """Append no more."""
        for lane in self.lanes:
            lane.journal.close()

    def release(self) -> None:
        """Let other processes take our journals up."""
        for lane in self.lanes:
            lane.journal.release()

    @property
    def shipped(self) -> int:
        """Events of our own journals that Redis took."""
        return sum(lane.shipment.lines for lane in self.lanes)

    def _next_turn(self) -> None:
        """Give the turn to the next lane whose Redis is there, else to the next one."""
        self._left = TURN_EVENTS
        for lane in islice(self._turns, len(self.lanes)):
            self._lane = lane
            if not lane.breaker.is_open:
                return
