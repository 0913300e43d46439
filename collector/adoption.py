"""Journals left behind by processes that are gone: found, locked, shipped to their end, kept a while, removed."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from collector.journal import journal_folders, sweep, take_up
from collector.queue import queue_id
from collector.shipment import QueueEnd, Shipment
from collector.space import Space
from process.logs import log

MOST_ADOPTED: Final = 128
"""At once, an open file each; the others wait until those are kept no longer."""

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
        self.unreadable: dict[str, str] = {}
        """Journals that the system does not let us read, or remove, and why."""
        self.lines = 0
        """Lines that Redis took."""
        self.torn_bytes = 0
        """Bytes of them passed over because no whole record stood there."""
        self.gone_bytes = 0
        """Bytes of them that neither Redis nor the journal had any more."""

    async def ship(self) -> None:
        """Look for journals and ship them, until cancelled."""
        with suppress(OSError):  # whoever writes there says so
            sweep(self._directory)
        while True:
            ends = await self._ends_by_id()
            self._forget_removed()
            for folder in self._folders():
                if folder.name not in self._adopted and len(self._adopted) < MOST_ADOPTED:
                    with self._one_of_many(folder.name):
                        self._adopt(folder, ends)
            for journal_id, shipment in list(self._adopted.items()):
                if shipment.end in ends.values():
                    with self._one_of_many(journal_id):
                        await self._ship_one(shipment)
            self._space.adopted = sum(map(_bytes_on_disk, self._adopted.values()))
            await asyncio.sleep(LOOK_SECONDS)

    async def _ends_by_id(self) -> dict[str, QueueEnd]:
        """Give the queues whose Redis answers."""
        found = {}
        for end in self._ends:
            with suppress(RedisError):
                found[await queue_id(end.redis, end.keys)] = end
        return found

    def _folders(self) -> list[Path]:
        try:
            return journal_folders(self._directory)
        except OSError:
            return []  # whoever writes there says so

    def _forget_removed(self) -> None:
        """Say no more of journals that are gone. One that another process is just looking at stays what it was."""
        for name in {*self.stranded, *self.unreadable, *self._adopted}:
            if not _is_gone(self._directory / name):
                continue
            self.stranded.pop(name, None)
            self.unreadable.pop(name, None)
            if (shipment := self._adopted.pop(name, None)) is not None:
                log.error("journal_taken_away", journal=name, cure="leave JOURNAL_DIR to the collector")
                shipment.journal.release()

    @contextmanager
    def _one_of_many(self, name: str) -> Iterator[None]:
        """Say what is wrong with one journal, and let the others go on."""
        try:
            yield
        except RedisError:
            return  # it is away in the next round too: its journals wait
        except OSError as error:
            self._say_unreadable(
                name,
                str(error),
                cure="let this user read and write its files; it is tried again every second",
            )
        except Exception as error:  # noqa: BLE001 (a fault of ours with a damaged one costs no other, nor visitors)
            self._say_unreadable(name, repr(error), cure="report it", exc_info=error)
        else:
            self.unreadable.pop(name, None)

    def _say_unreadable(self, name: str, why: str, **more: object) -> None:
        if name not in self.unreadable:
            log.error("journal_unreadable", journal=name, why=why, **more)
        self.unreadable[name] = why

    def _adopt(self, folder: Path, ends: Mapping[str, QueueEnd]) -> None:
        """Take a journal up if it can be shipped to one of these; one that never tried may go to any of them."""
        journal = take_up(folder)
        if journal is None:
            return
        try:
            bound_to = journal.queue_id
        except OSError:
            journal.release()
            raise
        end = next(iter(ends.values()), None) if bound_to is None else ends.get(bound_to)
        if end is not None:
            self._adopted[journal.id] = Shipment(journal, end)
            self.stranded.pop(journal.id, None)
            log.info("journal_adopted", journal=journal.id)
            return
        journal.release()
        # As long as some Redis is away, that may be the one.
        if bound_to is not None and len(ends) == len(self._ends) and journal.id not in self.stranded:
            self.stranded[journal.id] = bound_to
            log.error(
                "journal_of_another_redis",
                journal=journal.id,
                queue=bound_to,
                cure="name its Redis in REDIS_URL…; if that is gone or was emptied: collector journals rebind",
            )

    async def _ship_one(self, shipment: Shipment) -> None:
        shipment.look_again()
        lines, torn, gone = shipment.lines, shipment.torn_bytes, shipment.gone_bytes
        try:
            while await shipment.step():
                pass
        finally:
            self.lines += shipment.lines - lines
            self.torn_bytes += shipment.torn_bytes - torn
            self.gone_bytes += shipment.gone_bytes - gone
        old = shipment.journal.last_written() < time.time() - self._keep_seconds
        if (old or self._space.is_crowded) and await shipment.durable() == shipment.position:
            shipment.journal.remove()
            del self._adopted[shipment.journal.id]
            await shipment.forget_position()


def _bytes_on_disk(shipment: Shipment) -> int:
    try:
        return shipment.journal.bytes_on_disk()
    except OSError:
        return 0  # it is just being taken away, or cannot be read


def _is_gone(folder: Path) -> bool:
    try:
        return not folder.exists()
    except OSError:
        return False  # nobody can tell
