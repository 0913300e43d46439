"""Tasks that end when they are told to, and waits that end when their time is up.

Up to Python 3.11 asyncio.wait_for swallows a cancellation that arrives when what it waits for is just done, and
redis-py sends every command through it: two of three cancellations were lost in a loop of GETs. So a task is
cancelled until it ends, and a bound is kept by the one who waits, not by a cancellation that may get lost.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import count
from typing import Any, Final, TypeVar

Answer = TypeVar("Answer")

_AGAIN_SECONDS: Final = 0.1
"""Between attempts: what a task does at its end is not to be interrupted."""

_STEPS: Final = 7
"""A loop of commands can be in step with our timer, and swallow every cancellation: each comes a step later."""


async def end(tasks: Iterable[asyncio.Task[Any]], *, after: float = 0) -> None:
    """Give tasks `after` seconds, then cancel them, and wait until they have ended, however they end.

    A task that does nothing but send commands to Redis, without ever waiting for anything else, can take long.
    """
    pending = set(tasks)
    if after and pending:
        _, pending = await asyncio.wait(pending, timeout=after)
    for attempt in count():
        if not pending:
            return
        for _ in range(attempt % _STEPS):
            await asyncio.sleep(0)
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


def at_most_once_a_second(ask: Callable[[], Awaitable[Answer]]) -> Callable[[], Awaitable[Answer]]:
    """Give `ask`, asked once a second however many want to know; the others share the last answer."""
    asked_at = -1.0
    answer: asyncio.Future[Answer] | None = None

    async def shared() -> Answer:
        nonlocal asked_at, answer
        if answer is None or time.monotonic() - asked_at >= 1:
            asked_at = time.monotonic()
            answer = asyncio.ensure_future(ask())
        return await asyncio.shield(answer)

    return shared
