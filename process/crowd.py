"""How many visitors are connected at once: there is a bound, and who was silent longest makes room for a new one.

A browser keeps its connection for as long as we let it, and follows one link. Without a bound as many as come within
that time hold memory (docs/benchmarks.md) and open files, until there are none left for journals.
"""

import resource
import time
from heapq import nsmallest
from operator import itemgetter
from typing import Final, Protocol

KEPT_FILES: Final = 512
"""Open files that visitors leave to us: 200 connections to upstream servers, 128 journals left behind, Redis, …"""

_SHARE_AT_ONCE: Final = 64
"""A 64th of all makes room together: to look for the longest silent takes a millisecond or two."""

_LOOK_SECONDS: Final = 0.02
"""Between looks where fewer than that were silent, or every newcomer would cost a look."""


class Guest(Protocol):
    """A connection."""

    def silent_since(self) -> float | None:
        """Since when nothing came of it, by the loop's clock; None while a request is in hand and gets on."""

    def abort(self) -> None:
        """Close at once."""


class Crowd:
    """The connections of a process, on all ports that visitors come to."""

    def __init__(self, most: int) -> None:
        self.most: Final = most
        self.gave_way = 0
        """Silent ones that were closed to make room."""
        self.refused = 0
        """New ones that found no room: every other had a request in hand."""
        self._guests: set[Guest] = set()
        self._look_at = 0.0

    def __len__(self) -> int:
        return len(self._guests)

    def add(self, guest: Guest) -> None:
        """Count a connection, or close it if no other makes room."""
        if len(self._guests) >= self.most:
            self._make_room()
        if len(self._guests) < self.most:
            self._guests.add(guest)
        else:
            self.refused += 1
            guest.abort()

    def discard(self, guest: Guest) -> None:
        """Count it no more."""
        self._guests.discard(guest)

    def _make_room(self) -> None:
        now, share = time.monotonic(), max(self.most // _SHARE_AT_ONCE, 1)
        if now < self._look_at:
            return
        silent = [(since, guest) for guest in self._guests if (since := guest.silent_since()) is not None]
        if len(silent) < share:
            self._look_at = now + _LOOK_SECONDS
        for _, guest in nsmallest(share, silent, key=itemgetter(0)):
            self._guests.discard(guest)
            self.gave_way += 1
            guest.abort()


def connections_allowed(wanted: int) -> int:
    """Have the system let us open as many files as so many connections need; gives how many connections it lets us.

    A process begins with a soft limit, often 1,024, that it may raise itself up to the hard one.
    """
    needed = wanted + KEPT_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return wanted if allowed == needed else max(allowed - KEPT_FILES, allowed // 2)
