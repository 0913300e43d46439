"""Redrive or drop: pile after pile, batch after batch, at the pace at which the kafkastore takes lines."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from kafkastore.dead_letters import Letter
from kafkastore.dead_piles import Pile

MOST_LINES: Final = 4_000
"""Lines in one script: Lua's unpack fails above about 8,000."""

MOST_BYTES: Final = 1_000_000
"""Bytes of lines in one script, unless a single one is larger: Redis stands still for a few milliseconds."""

MOST_WAITING: Final = 100_000
"""Lines in the queue above which we wait for the kafkastore: some 70 MB, a few seconds of its work."""

PATIENCE_SECONDS: Final = 60.0
"""Without a line taken from such a queue: nobody works at it."""

_LOOK_AGAIN_SECONDS: Final = 0.1


class QueueFullError(Exception):
    """The queue is long and nobody takes lines from it."""


async def move(
    pile: Pile,
    letters: int,
    *,
    redrive: bool,
    on_moved: Callable[[int], object],
    most_waiting: int = MOST_WAITING,
) -> None:
    """Redrive or drop the first letters of a pile. Raises MarkMovedError, QueueFullError, RedisError, KafkaError.

    Whatever ends it, the letters moved so far are moved, and no other is.
    """
    async for batch in _batches(pile.letters(), letters):
        if redrive:
            await _until_room(pile, most_waiting)
        await pile.move(batch, redrive=redrive)
        on_moved(len(batch))


async def _batches(letters: AsyncIterator[Letter], most: int) -> AsyncIterator[list[Letter]]:
    if not most:
        return
    batch: list[Letter] = []
    size = 0
    async for letter in letters:
        if batch and (len(batch) == MOST_LINES or size + len(letter.line) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(letter)
        size += len(letter.line)
        most -= 1
        if not most:
            break
    if batch:
        yield batch


async def _until_room(pile: Pile, most_waiting: int) -> None:
    """Wait while the queue is long: what we push must not take the memory that clicks need."""
    waiting, since = await pile.waiting(), time.monotonic()
    while waiting >= most_waiting:
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise QueueFullError(f"{waiting} lines wait in the queue, and nobody takes them")
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        before, waiting = waiting, await pile.waiting()
        if waiting < before:
            since = time.monotonic()
