"""The web site behind us: its connections, and its pages in memory; opened and closed on one screen."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp

from collector.documents import Documents
from collector.referral import suffixes
from collector.refresh import Refreshes
from collector.relay import Bounds, open_upstreams
from process.logs import log

MOST_CONNECTIONS: Final = 256
"""To the frontend, per process. Slow visitors hold them, each with 192 KiB at most: 48 MB."""

MOST_SOCKETS: Final = 1024
"""WebSockets, which have connections of their own so that pages never wait for one that stays open."""

BOUNDS: Final = Bounds(
    whole_seconds=6 * 3600.0,  # a film, to a slow visitor
    answer_bytes=64 * 1024**3,
    request_bytes=1024**3,
)
"""The site is the operator's own: it may send and take what it likes, as long as it moves."""

PATIENCE_SECONDS: Final = 2.0
"""For the frontend where there is a copy of the page: visitors leave after three."""

REPORT_SECONDS: Final = 60.0
"""Failures are counted always and logged once a minute."""


@dataclass(slots=True)
class Frontend:
    """What a request for the web site needs."""

    origin: str
    """`http://127.0.0.1:8081`."""
    http: aiohttp.ClientSession
    sockets: aiohttp.ClientSession
    documents: Documents
    refreshes: Refreshes
    bounds: Bounds
    patience_seconds: float
    served: Counter[str] = field(default_factory=Counter)
    """Answers from memory: `fresh`, `confirmed`, `stale`."""
    failed: Counter[str] = field(default_factory=Counter)
    """Answers that the frontend did not give, by reason."""
    _reported_at: float = 0.0

    @property
    def bounds_with_a_copy(self) -> Bounds:
        """The bounds of a request for which something else could be shown."""
        return replace(
            self.bounds, connect_seconds=self.patience_seconds, answer_seconds=self.patience_seconds
        )

    def note_failure(self, why: str) -> None:
        """Count, and say from time to time, that the frontend gave no answer."""
        self.failed[why] += 1
        now = time.monotonic()
        if not self._reported_at or now - self._reported_at > REPORT_SECONDS:
            self._reported_at = now
            log.warning("frontend_fails", why=why, failed=dict(self.failed), stale=self.served["stale"])


@asynccontextmanager
async def open_frontend(
    origin: str, bounds: Bounds = BOUNDS, patience_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[Frontend]:
    """Open what pages of the web site are fetched with, and kept in."""
    suffixes()  # not when the first visitor waits for it
    documents = Documents()
    async with (
        open_upstreams(most=MOST_CONNECTIONS, most_per_host=MOST_CONNECTIONS) as http,
        open_upstreams(most=MOST_SOCKETS, most_per_host=MOST_SOCKETS) as sockets,
        Refreshes(http, documents) as refreshes,
    ):
        yield Frontend(origin, http, sockets, documents, refreshes, bounds, patience_seconds)
