"""The collector of one process: what its routes work with, opened and closed on one screen."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import uuid_utils
from redis.exceptions import RedisError

from collector.client_address import ClientAddress, client_address
from collector.event import Event
from collector.journal import JournalFullError, OpenJournal
from collector.queue import open_redis, queue_keys
from collector.settings import CollectorSettings
from collector.shipper import QueueEnd, Shipper
from links.directory import LinkDirectory
from links.store import LinkStore, LinkStoreError
from process.logs import log
from process.run import CannotStartError
from process.tasks import end, within

DROP_REPORT_SECONDS = 60.0
"""Dropped events are counted always and logged once a minute."""

FINISH_SECONDS = 3.0
"""What a stopping process gives Redis to take the rest; whatever it does not is in the journal."""


@dataclass
class Collector:
    """What a request needs to be answered and remembered."""

    settings: CollectorSettings
    links: LinkDirectory
    journal: OpenJournal
    shipper: Shipper
    redis_alive: Callable[[], Awaitable[bool]]
    address_of: ClientAddress
    recorded: Counter[str] = field(default_factory=Counter)
    """Events in the journal, by topic."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Events lost because the journal could not take them, by reason."""
    background: list[asyncio.Task[None]] = field(default_factory=list)
    """What runs as long as the process does; one that ends by itself ends the process."""
    _reported: float = 0.0

    def record(self, event: Event) -> None:
        """Put an event into the journal; one that cannot be written is counted, never an error of the visitor's."""
        try:
            self.journal.append(event.encode())
        except JournalFullError:
            self._drop("journal_full")
        except OSError as error:
            self._drop(f"journal_write: {error.strerror or error}")
        else:
            self.recorded[event.topic] += 1
            self.shipper.wake()

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1
        now = time.monotonic()
        if not self._reported or now - self._reported > DROP_REPORT_SECONDS:
            self._reported = now
            log.error("events_dropped", dropped=dict(self.dropped))


@asynccontextmanager
async def open_collector(settings: CollectorSettings, worker: int) -> AsyncIterator[Collector]:
    """Open everything a collector process needs; on the way out ship what is in hand."""
    async with AsyncExitStack() as stack:
        redises = [open_redis(url, tls_insecure=settings.redis_tls_insecure) for url in settings.redis_urls]
        for redis in redises:
            stack.push_async_callback(redis.aclose)
        store = LinkStore(settings.database_url.get_secret_value())
        stack.push_async_callback(store.close)

        try:
            journal = OpenJournal(
                settings.journal_dir, settings.journal_max_bytes // settings.web_concurrency
            )
        except OSError as error:
            cure = "set JOURNAL_DIR to a folder that this user may write to"
            raise CannotStartError(f"The journal cannot be written ({error}): {cure}.") from None
        stack.callback(journal.release)
        ends = [QueueEnd(redis, keys) for redis in redises for keys in queue_keys(settings.queues)]
        home = ends[worker % len(ends)]
        shipper = Shipper(journal, home, ends, settings.journal_dir, settings.journal_keep_seconds)
        links = LinkDirectory(store)
        collector = Collector(
            settings=settings,
            links=links,
            journal=journal,
            shipper=shipper,
            redis_alive=at_most_once_a_second(lambda: _all_answer(ends)),
            address_of=client_address(settings.trusted_proxies),
        )
        # The first visitor shall find the links; a database that is away does not keep the others waiting.
        with suppress(LinkStoreError, TimeoutError):
            await links.refresh()
        collector.background = [asyncio.create_task(links.keep_fresh()), *shipper.start()]
        try:
            yield collector
        finally:
            await end(collector.background)
            journal.close()
            with suppress(TimeoutError):
                await within(FINISH_SECONDS, shipper.finish())
            log.info(
                "collector_stopped",
                recorded=dict(collector.recorded),
                dropped=dict(collector.dropped),
                unshipped=max(collector.recorded.total() - shipper.shipped, 0),
                adopted=shipper.adopted,
            )


def new_event_id() -> str:
    """Give a UUIDv7: unique, and in the order of time."""
    return str(uuid_utils.uuid7())


async def _all_answer(ends: list[QueueEnd]) -> bool:
    """Tell whether every Redis answers PING within its timeout."""
    answers = await asyncio.gather(*(end.redis.ping() for end in ends), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, RedisError | OSError):
            raise answer
    return all(answer is True for answer in answers)


def at_most_once_a_second(ask: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """Give `ask`, asked once a second however many want to know; the others share the last answer."""
    asked_at = -1.0
    answer: asyncio.Future[bool] | None = None

    async def shared() -> bool:
        nonlocal asked_at, answer
        if answer is None or time.monotonic() - asked_at >= 1:
            asked_at = time.monotonic()
            answer = asyncio.ensure_future(ask())
        return await asyncio.shield(answer)

    return shared
