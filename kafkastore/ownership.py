"""Whose queue this is: wait for the lease, keep it as long as its work goes on, begin again after any trouble."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import RedisError

from kafkastore.connection import PublishError
from kafkastore.queue import RENEW_SECONDS, NotDurableError, NotOwnerError, Queue
from kafkastore.sharing import Share
from kafkastore.stop_limit import StopLimitError
from process.logs import log
from process.tasks import end

RETRY_SECONDS: Final = 1.0
"""Between attempts while Redis or Kafka is away."""

STOPPED_SECONDS: Final = 10.0
"""Between attempts at a batch that the stop limit holds back: somebody has to look first."""

SAY_AGAIN_SECONDS: Final = 60.0
"""Between two log lines about the same trouble."""


class ForeignBatchError(Exception):
    """The batch in flight was on its way to another Kafka; the sentence has the cure."""


Lease = asyncio.Task[None]
"""Renews the lease; done when it is lost."""


class Ownership:
    """One queue's way from owner to owner, as this process sees it."""

    def __init__(self, queue: Queue, share: Share) -> None:
        self._queue = queue
        self._share = share
        self._why = ""
        self._said_at = 0.0
        self.trouble: str | None = None
        """What the queue waits for, in a few words of ours."""

    @property
    def troubled(self) -> bool:
        """Whether it was said that the queue waits."""
        return bool(self._why)

    @property
    def gives(self) -> bool:
        """Whether the queue is to be another kafkastore's, whose share is smaller than ours."""
        return self._share.gives(self._queue.keys.list)

    async def hold(
        self, move: Callable[[Lease], Awaitable[bool]], stop: asyncio.Event, *, until_empty: bool
    ) -> None:
        """Move what is in the queue whenever it is ours, until told to stop or `move` says that it is done."""
        while not stop.is_set():
            try:
                if self._share.may_take() and await self._queue.own():
                    if await self._hold_once(move):
                        return
                elif until_empty and not await self._queue.length():
                    return
            except StopLimitError as error:
                self._say(error, "stopped: too many lines are dead")
                await pause(stop, STOPPED_SECONDS)
            except (PublishError, ForeignBatchError, NotDurableError) as error:
                self._say(
                    error, "waits for Kafka" if isinstance(error, PublishError) else "waits for a person"
                )
            except NotOwnerError as error:
                self._say(error, None)
            except (RedisError, OSError) as error:
                self._say(error, "waits for Redis")
            await pause(stop, RETRY_SECONDS)

    def goes_on(self) -> None:
        """Say so, if the queue waited."""
        self.trouble = None
        if self._why:
            log.warning("queue_goes_on", queue=self._queue.keys.list)
            self._why = ""

    async def _hold_once(self, move: Callable[[Lease], Awaitable[bool]]) -> bool:
        queue = self._queue.keys.list
        self._share.took(queue)
        lease = asyncio.create_task(_keep(self._queue))
        try:
            return await move(lease)
        finally:
            self._share.gave(queue)
            await end({lease})
            await _release(self._queue)

    def _say(self, error: Exception, trouble: str | None) -> None:
        """Log why the queue waits when that changes, and once a minute as long as it does."""
        self.trouble = trouble
        why = str(error) or type(error).__name__
        if why != self._why or time.monotonic() - self._said_at > SAY_AGAIN_SECONDS:
            log.warning("queue_waits", queue=self._queue.keys.list, why=why)
            self._why, self._said_at = why, time.monotonic()


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than until told to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def _keep(queue: Queue) -> None:
    """Renew the lease until cancelled; ends with NotOwnerError when it is lost."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            if not await queue.own():
                raise NotOwnerError("another process owns this queue")
        except (RedisError, OSError):
            continue  # the next claim meets the same Redis, and says so


async def _release(queue: Queue) -> None:
    try:
        await queue.release()
    except (RedisError, OSError):
        log.warning("lease_not_released", queue=queue.keys.list)
