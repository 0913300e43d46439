"""Journals left behind by processes that are gone: found, locked, shipped to their end, kept a while, removed."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from collector.journal import journals_left_behind
from collector.queue import queue_id
from collector.shipment import QueueEnd, Shipment
from collector.space import Space
from process.logs import log

LOOK_SECONDS: Final = 1.0
"""Between looks at the folder, and at the Redis of journals that wait for it."""


class Adoption:
    """Takes up the journals that nobody else has."""

    def __init__(
        self, directory: Path, ends: Sequence[QueueEnd], space: Space, *, keep_seconds: float
    ) -> None:
        self._directory = directory
        self._ends = ends
        self._space = space
        self._keep_seconds = keep_seconds
        self._adopted: dict[str, Shipment] = {}
        self.stranded: dict[str, str] = {}
        """Journals that can be shipped nowhere, and the queue that each is bound to: no Redis of ours has it."""
        self.lines = 0
        """Lines that Redis took."""
        self.torn_bytes = 0
        """Bytes of them passed over because no whole record stood there."""
        self.gone_bytes = 0
        """Bytes of them that neither Redis nor the journal had any more."""

    async def ship(self) -> None:
        """Look for journals and ship them, until cancelled."""
        while True:
            ends = await self._ends_by_id()
            self._adopt(ends)
            for journal_id, shipment in list(self._adopted.items()):
                # A Redis that goes away now is away in the next round too: its journals wait.
                with suppress(RedisError):
                    if shipment.end in ends.values():
                        await self._ship_one(journal_id, shipment)
            self._space.adopted = sum(shipment.journal.bytes_on_disk() for shipment in self._adopted.values())
            await asyncio.sleep(LOOK_SECONDS)

    async def _ends_by_id(self) -> dict[str, QueueEnd]:
        """Give the queues whose Redis answers."""
        found = {}
        for end in self._ends:
            with suppress(RedisError):
                found[await queue_id(end.redis, end.keys)] = end
        return found

    def _adopt(self, ends: Mapping[str, QueueEnd]) -> None:
        """Take up what can be shipped to these; one that never tried may go to any of them."""
        # One that another process is just looking at stays what it was.
        self.stranded = {
            journal: queue for journal, queue in self.stranded.items() if (self._directory / journal).exists()
        }
        for journal in journals_left_behind(self._directory):
            bound_to = journal.queue_id
            end = next(iter(ends.values()), None) if bound_to is None else ends.get(bound_to)
            if end is not None:
                self._adopted[journal.id] = Shipment(journal, end)
                self.stranded.pop(journal.id, None)
                log.info("journal_adopted", journal=journal.id)
                continue
            journal.release()
            # As long as some Redis is away, that may be the one.
            if bound_to and len(ends) == len(self._ends) and journal.id not in self.stranded:
                self.stranded[journal.id] = bound_to
                log.error(
                    "journal_of_another_redis",
                    journal=journal.id,
                    queue=bound_to,
                    cure="name its Redis in REDIS_URL…; if that is gone or was emptied: collector journals rebind",
                )

    async def _ship_one(self, journal_id: str, shipment: Shipment) -> None:
        shipment.begin_again()
        lines, torn, gone = shipment.lines, shipment.torn_bytes, shipment.gone_bytes
        while await shipment.step():
            pass
        self.lines += shipment.lines - lines
        self.torn_bytes += shipment.torn_bytes - torn
        self.gone_bytes += shipment.gone_bytes - gone
        old = shipment.journal.last_written() < time.time() - self._keep_seconds
        if (old or self._space.is_crowded) and await shipment.durable() == shipment.position:
            del self._adopted[journal_id]
            await shipment.remove()
