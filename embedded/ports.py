"""Ports of 127.0.0.1 that a server may be given, and may be given again after it was killed.

Between being given and being listened on, and while its server is down, a port looks free. So nobody is given one
that another process of this user was given and may still want: a lock on its byte of one file says so, as long as
that process lives. And no process is given the same one twice before it has had them all.
"""

import contextlib
import fcntl
import itertools
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below what Linux (32768) and macOS (49152) hand to outgoing connections. A port from up there can be some
# outgoing connection's by the time its server is started again; a client that keeps knocking on a closed one
# can even end up connected to itself, and the server never gets its port back.
FIRST, LAST = 20_000, 29_999
TRIES = 200

_candidates = itertools.cycle(random.SystemRandom().sample(range(FIRST, LAST + 1), LAST + 1 - FIRST))


def free_port() -> int:
    """Return a port that nothing listened on a moment ago, and that nobody else was given."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Return different ports of that kind. Raises OSError if there are too few."""
    candidates = itertools.islice(_candidates, TRIES + count)
    ports = tuple(itertools.islice((port for port in candidates if is_free(port) and _is_ours(port)), count))
    if len(ports) < count:
        raise OSError(f"no {count} free ports among {TRIES + count} between {FIRST} and {LAST}")
    return ports


def _is_ours(port: int) -> bool:
    """Tell whether no other process was given it, and keep it from them until this one ends."""
    try:
        fcntl.lockf(_given(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache  # open until the end: closing it would give up every lock
def _given() -> int:
    path = Path(tempfile.gettempdir(), f"onward-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def is_free(port: int) -> bool:
    """Tell whether a server could listen there now (connections that are still closing do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Tell whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False
