"""The same brokers as apache_kafka, from the official image, where a Docker engine runs and Java does not.

Brokers talk to each other in a network of their own; each publishes one port, on 127.0.0.1. A killed
container keeps its data until the end. Needs testcontainers (requirements/dev.in); its reaper outlives us.
"""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient, get_docker_host
from testcontainers.core.network import Network

from embedded.apache_kafka import START_SECONDS, VERSION, common_settings, new_cluster_id
from embedded.kafka import Broker, KafkaServer, nodes_seen_by
from embedded.ports import LOOPBACK, free_ports
from embedded.server import LOG_LINES_SHOWN, POLL_SECONDS, ServerUnavailable

LOCAL_ENGINE = "unix:///var/run/docker.sock"
PING_SECONDS = 2
HEAP = "-Xms32m -Xmx256m"
BETWEEN_BROKERS, CONTROLLER = 29092, 29093


@contextmanager
def running_docker_kafka(*, brokers: int = 1, version: str = VERSION) -> Iterator[KafkaServer]:
    """Run `brokers` containers. Raises ServerUnavailable, at once where no engine answers."""
    image = f"apache/kafka:{version}"
    _have(image)
    ports = dict(enumerate(free_ports(brokers), start=1))
    cluster = {"CLUSTER_ID": new_cluster_id(), "KAFKA_HEAP_OPTS": HEAP}
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
            containers = {
                node: stack.enter_context(
                    _container(image, node, port, cluster | as_environment(node, ports)).with_network(network)
                )
                for node, port in ports.items()
            }
        except (DockerException, OSError) as error:
            raise ServerUnavailable(f"Docker does not start {image}: {error}") from error
        for node, container in containers.items():
            _await(frozenset(ports), ports[node], container)
        running = (_broker(node, ports[node], container) for node, container in containers.items())
        yield KafkaServer(tuple(running), transactions=True)


def as_environment(node: int, ports: Mapping[int, int]) -> dict[str, str]:
    """Return a node's settings as the image takes them: `log.dirs` as `KAFKA_LOG_DIRS`."""
    listeners = f"PLAINTEXT://:{ports[node]},INTERNAL://:{BETWEEN_BROKERS}"
    names = ("PLAINTEXT", "INTERNAL", "CONTROLLER")
    settings = common_settings(len(ports)) | {
        "node.id": f"{node}",
        "controller.quorum.voters": ",".join(f"{n}@kafka-{n}:{CONTROLLER}" for n in ports),
        "listeners": f"{listeners},CONTROLLER://:{CONTROLLER}",
        "advertised.listeners": (
            f"PLAINTEXT://{LOOPBACK}:{ports[node]},INTERNAL://kafka-{node}:{BETWEEN_BROKERS}"
        ),
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        "log.dirs": "/tmp/kafka-data",  # noqa: S108 - inside the container, where the image may write
    }
    return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}


def _have(image: str) -> None:
    """Make sure that an engine answers and has the image, or can pull it."""
    host = get_docker_host() or LOCAL_ENGINE
    try:
        if host.startswith("unix://"):  # Docker's own client leaves a socket open when nobody answers there
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(PING_SECONDS)
                probe.connect(host.removeprefix("unix://"))
        with closing(DockerClient(timeout=PING_SECONDS).client) as client:
            client.ping()
            there = client.images.list(name=image)
        if not there:
            with closing(DockerClient().client) as client:
                client.images.pull(image)
    except (DockerException, OSError) as error:
        raise ServerUnavailable(f"No Docker engine answers, or it cannot have {image}: {error}") from error


def _container(image: str, node: int, port: int, environment: dict[str, str]) -> DockerContainer:
    container = DockerContainer(image, env=environment).with_network_aliases(f"kafka-{node}")
    # The engine takes an address, too, whatever the annotation says; without one it serves all interfaces.
    container.ports[f"{port}/tcp"] = (LOOPBACK, port)  # type: ignore[assignment]
    return container


def _broker(node: int, port: int, container: DockerContainer) -> Broker:
    wrapped = container.get_wrapped_container()

    def kill() -> None:
        wrapped.kill()
        wrapped.wait()  # a start that comes before the end would be lost

    def start() -> None:
        wrapped.start()
        _await(frozenset({node}), port, container)

    return Broker(node, port, kill, start)


def _await(wanted: frozenset[int], port: int, container: DockerContainer) -> None:
    """Return when this broker knows of all the wanted ones."""
    deadline = time.monotonic() + START_SECONDS
    while not wanted <= nodes_seen_by(port):
        if time.monotonic() > deadline:
            log = b"".join(container.get_logs()).decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            raise ServerUnavailable(
                "\n".join([f"Kafka in Docker gave no answer in {START_SECONDS:g} s.", *log])
            )
        time.sleep(POLL_SECONDS)
