"""Ports of 127.0.0.1 that a server may be given, and may be given again after it was killed."""

import contextlib
import random
import socket

LOOPBACK = "127.0.0.1"
# Below what Linux (32768) and macOS (49152) hand to outgoing connections. A port from up there can be some
# outgoing connection's by the time its server is started again; a client that keeps knocking on a closed one
# can even end up connected to itself, and the server never gets its port back.
FIRST, LAST = 20_000, 29_999
TRIES = 200


def free_port() -> int:
    """Return a port that nothing listened on a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Return different ports that nothing listened on a moment ago. Raises OSError if there are too few."""
    candidates = random.SystemRandom().sample(range(FIRST, LAST + 1), TRIES + count)
    ports = [port for port in candidates if is_free(port)][:count]
    if len(ports) < count:
        raise OSError(f"no {count} free ports among {len(candidates)} between {FIRST} and {LAST}")
    return tuple(ports)


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
