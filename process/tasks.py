"""Tasks that end when they are told to, and waits that end when their time is up.

Up to Python 3.11 asyncio.wait_for swallows a cancellation that arrives when what it waits for is just done, and
redis-py sends every command through it: two of three cancellations were lost in a loop of GETs. So a task is
cancelled until it ends, and a bound is kept by the one who waits, not by a cancellation that may get lost.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

Answer = TypeVar("Answer")

_AGAIN_SECONDS: Final = 0.05


async def end(tasks: Iterable[asyncio.Task[Any]], *, after: float = 0) -> None:
    """Give tasks `after` seconds, then cancel them, and wait until they have ended, however they end."""
    pending = set(tasks)
    if after and pending:
        _, pending = await asyncio.wait(pending, timeout=after)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)


async def within(seconds: float, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Give what the coroutine gives, or raise TimeoutError when that takes longer."""
    task = asyncio.create_task(coroutine)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"this took longer than {seconds:g} s")
        return task.result()
    finally:
        if not task.done():
            await end({task})


async def until_stopped(stop: asyncio.Event, tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until told to stop; raise what ended a task that should have run as long."""
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        stopped.cancel()
