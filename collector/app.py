"""The collector of one process: what its routes work with, opened and closed on one screen."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
import uuid_utils
from aiohttp import hdrs
from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.client_address import ClientAddress, client_address, peers_trusted
from collector.event import Event
from collector.frontend import Frontend, open_frontend
from collector.host import Trusts, peer_of
from collector.lane import Lane
from collector.metrics import samples_of
from collector.open_journal import JournalFullError
from collector.proxy import open_proxy
from collector.queue import open_redis, queue_keys
from collector.settings import CollectorSettings
from collector.shipment import QueueEnd
from collector.shipper import Shipper
from collector.space import Space
from links.directory import LinkDirectory
from links.store import LinkStore, LinkStoreError
from process.at_once import AnyRequest
from process.board import PIN_SECONDS, Board
from process.crowd import Crowd, connections_allowed
from process.logs import log
from process.metrics import Durations
from process.protocol import SERVER
from process.run import CannotStartError
from process.tasks import at_most_once_a_second, end, within

DROP_REPORT_SECONDS = 60.0
"""Dropped events are counted always and logged once a minute."""

PROBE_SECONDS = 1.0
"""How old the answer to "can the journal be written?" may be."""

FINISH_SECONDS = 3.0
"""What a stopping process gives Redis to take the rest; whatever it does not is in the journal."""


class Seen(Protocol):
    """What a visitor did, as far as it was looked at: a click, an orphan, a referral."""

    def event(self) -> Event:
        """Give its event."""


@dataclass
class Collector:
    """What a request needs to be answered and remembered."""

    settings: CollectorSettings
    links: LinkDirectory
    link_store: LinkStore
    space: Space
    """What the journals take on disk."""
    shipper: Shipper
    redises_away: Callable[[], Awaitable[tuple[int, ...]]]
    """Gives the numbers, from 1, of the Redis that do not answer."""
    address_of: ClientAddress
    trusts: Trusts
    """Whether a peer is a proxy of the operator's."""
    http: aiohttp.ClientSession
    """Fetches what links in proxy mode show."""
    own_headers: Mapping[str, str]
    """What every answer carries."""
    own_lines: str
    """The same, as it is sent."""
    board: Board
    worker: int
    crowd: Crowd
    """Who is connected."""
    frontend: Frontend | None = None
    """The web site behind us."""
    stopping: bool = False
    recorded: Counter[str] = field(default_factory=Counter)
    """Events in the journal, by topic."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Events lost because the journal could not take them, by reason."""
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Requests, by route and status."""
    durations: defaultdict[str, Durations] = field(default_factory=lambda: defaultdict(Durations))
    """How long they took, by route."""
    background: list[asyncio.Task[None]] = field(default_factory=list)
    """What runs as long as the process does; one that ends by itself ends the process."""
    _noted: list[Seen] = field(default_factory=list)
    _noted_answers: list[tuple[str, bytes]] = field(default_factory=list)
    """Of this turn: the route and the status."""
    _reported_at: float = 0.0
    _probed_at: float = 0.0
    _refuses: bool = False

    async def record(self, event: Event) -> None:
        """Write an event down, as safely as DURABILITY asks for."""
        lane = self.write_down(event)
        if lane is not None:
            await lane.safe()

    def write_down(self, *events: Event) -> Lane | None:
        """Append events to a journal; one that cannot be is counted, and never an error of the visitor's.

        Gives the lane that they take.
        """
        try:
            lane = self.shipper.append(*[event.encode() for event in events])
        except (JournalFullError, OSError) as error:
            if len(events) > 1:
                for event in events:  # there may be room for some
                    self.write_down(event)
            else:
                self._drop(error)
            return None
        for event in events:
            self.recorded[event.topic] += 1
        return lane

    def note(self, seen: Seen) -> None:
        """Have something written down with all else of this turn, before any of its visitors is answered.

        Its event is made then, too: one after the other, their code stays in the processor's caches, and a click
        takes a sixth less (measured).
        """
        self._noted.append(seen)

    def note_answer(self, route: str, status: bytes) -> None:
        """Have an answer counted with the others of this turn."""
        self._noted_answers.append((route, status))

    def end_turn(self, began: float) -> None:
        """Write down what was noted in a turn, in one system call, and count its answers: all are sent next."""
        noted, self._noted = self._noted, []
        if events := list(self._events(noted)):
            self.write_down(*events)
        answers, self._noted_answers = self._noted_answers, []
        for (route, status), number in Counter(answers).items():
            self.count(route, int(status), began, number)

    def lanes(self) -> Iterator[tuple[int, str, Lane]]:
        """Give every lane with the number of its Redis, from 1, and the name of its queue."""
        for index, lane in enumerate(self.shipper.lanes):
            yield index // self.settings.queues + 1, lane.queue, lane

    def count(self, route: str, status: int, began: float, number: int = 1) -> None:
        """Count requests that were answered, and how long that took since `began`."""
        self.answered[route, status] += number
        self.durations[route].add(time.perf_counter() - began, number)

    def client_of(self, request: AnyRequest) -> str:
        """Give the address of the visitor, whatever proxies of ours are between."""
        forwarded = request.headers.getall(self.settings.client_ip_header, ())
        return self.address_of(peer_of(request), forwarded)

    def journal_refuses(self) -> bool:
        """Tell whether an event could not be written down now; the disk is asked at most once a second."""
        now = time.monotonic()
        if not self._probed_at or now - self._probed_at >= PROBE_SECONDS:
            self._probed_at = now
            try:
                self.shipper.probe()
            except OSError:
                self._refuses = True
            else:
                self._refuses = False
        return self._refuses

    def pin_metrics(self) -> None:
        """Pin up what this process has counted, for whichever process is asked."""
        self.board.pin(self.worker, samples_of(self))

    async def keep_pinned(self) -> None:
        """Pin it up every second until cancelled."""
        while True:
            self.pin_metrics()
            await asyncio.sleep(PIN_SECONDS)

    def _events(self, noted: Iterable[Seen]) -> Iterator[Event]:
        for seen in noted:
            try:
                yield seen.event()
            except Exception:  # noqa: BLE001 (a fault of ours costs its own event, and none of its neighbours')
                self.dropped["fault"] += 1
                log.exception("event_not_made")

    def _drop(self, error: JournalFullError | OSError) -> None:
        if isinstance(error, JournalFullError):
            reason, why = "journal_full", "JOURNAL_MAX_BYTES are taken"
        else:
            reason, why = "journal_write", error.strerror or str(error)
        self.dropped[reason] += 1
        now = time.monotonic()
        if not self._reported_at or now - self._reported_at > DROP_REPORT_SECONDS:
            self._reported_at = now
            log.error("events_dropped", why=why, dropped=dict(self.dropped))


@asynccontextmanager
async def open_collector(
    settings: CollectorSettings, board: Board, worker: int = 0
) -> AsyncIterator[Collector]:
    """Open everything a collector process needs; on the way out ship what is in hand."""
    async with AsyncExitStack() as stack:
        redises = [open_redis(url, tls_insecure=settings.redis_tls_insecure) for url in settings.redis_urls]
        for redis in redises:
            stack.push_async_callback(redis.aclose)
        store = LinkStore(settings.database_url.get_secret_value())
        stack.push_async_callback(store.close)

        ends = [QueueEnd(redis, keys) for redis in redises for keys in queue_keys(settings.queues)]
        space = Space(settings.journal_max_bytes // settings.web_concurrency)
        try:
            shipper = Shipper(
                ends,
                settings.journal_dir,
                space,
                durability=settings.durability,
                keep_seconds=settings.journal_keep_seconds,
                first=worker,
            )
        except OSError as error:
            cure = "set JOURNAL_DIR to a folder that this user may write to"
            raise CannotStartError(f"The journal cannot be written ({error}): {cure}.") from None
        stack.callback(shipper.release)
        links = LinkDirectory(store)
        own_headers = _own_headers(settings)
        collector = Collector(
            settings=settings,
            links=links,
            link_store=store,
            space=space,
            shipper=shipper,
            redises_away=at_most_once_a_second(lambda: _away(redises)),
            address_of=client_address(settings.trusted_proxies),
            trusts=peers_trusted(settings.trusted_proxies),
            http=await stack.enter_async_context(open_proxy(private_allowed=settings.proxy_private)),
            own_headers=own_headers,
            own_lines="".join(f"{name}: {value}\r\n" for name, value in own_headers.items()),
            board=board,
            worker=worker,
            crowd=Crowd(connections_allowed(settings.max_connections)),
            frontend=None
            if settings.frontend_url is None
            else await stack.enter_async_context(open_frontend(settings.frontend_url)),
        )
        # The first visitor shall find the links; a database that is away does not keep the others waiting.
        with suppress(LinkStoreError, TimeoutError):
            await links.refresh()
        collector.background = [
            asyncio.create_task(links.keep_fresh()),
            asyncio.create_task(collector.keep_pinned()),
            *shipper.start(),
        ]
        try:
            yield collector
        finally:
            await end(collector.background)
            shipper.close()
            with suppress(TimeoutError):
                await within(FINISH_SECONDS, shipper.finish())
            log.info(
                "collector_stopped",
                recorded=dict(collector.recorded),
                dropped=dict(collector.dropped),
                unshipped=max(collector.recorded.total() - shipper.shipped, 0),
                adopted=shipper.adoption.lines,
            )


def new_event_id() -> str:
    """Give a UUIDv7: unique, and in the order of time."""
    return str(uuid_utils.uuid7())


def _own_headers(settings: CollectorSettings) -> dict[str, str]:
    headers: dict[str, str] = {hdrs.SERVER: SERVER}
    if settings.hsts_seconds:
        headers["Strict-Transport-Security"] = f"max-age={settings.hsts_seconds}"
    return headers


async def _away(redises: Sequence[Redis]) -> tuple[int, ...]:
    """Give the numbers, from 1, of the Redis that do not answer PING within their time-out."""
    answers = await asyncio.gather(*(redis.ping() for redis in redises), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, RedisError | OSError):
            raise answer
    return tuple(number for number, answer in enumerate(answers, 1) if answer is not True)
