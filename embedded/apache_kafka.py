"""Apache Kafka on this machine: one broker, or a cluster of them, each killable and restartable by itself.

Every node is broker and KRaft controller at once, listens on loopback only, and keeps its data, its settings
and its log (`kafka-<node>.log`) in `<directory>/node-<node>/`. It needs Java, at first use Maven too.
"""

import base64
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from embedded.apache_jars import APACHE, jars, java
from embedded.kafka import Broker, KafkaServer, nodes_seen_by
from embedded.ports import LOOPBACK, free_ports
from embedded.server import POLL_SECONDS, Child, Program, ServerUnavailable

# Not 4.3.0, 4.3.1, 4.4.0: they take a partition that has no leader just now for a deleted one and leave its commit
# marker out. So a lone broker that is killed right after it answered a commit, and started again, may hide that
# transaction from readers until its writer's next one (measured, never so with 3.9.2 to 4.2.1; KAFKA-20734).
# The test of a transaction over a kill finds it on most runs: repeat it before choosing a newer version.
VERSION = "4.2.1"
START_SECONDS = 90.0  # three JVMs that start at once on a shared two-core machine; alone it is 3 s
FORMAT_SECONDS = 60.0
STOP_SECONDS = 5  # the last ones of a cluster have lost their quorum and would wait for it for minutes
# A broker that lives hours at most needs neither the heap nor the compiler of one that lives for months.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xms32m")
FORMAT_HEAP = "-Xmx128m"


@dataclass(frozen=True, slots=True)
class Node:
    """One node and its folder."""

    number: int
    port: int
    controller_port: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Listener:
    """One more way to reach a lone broker, as `PROTOCOL://127.0.0.1:port`, beside the one without TLS."""

    protocol: str
    """SSL, SASL_SSL or SASL_PLAINTEXT; it is the listener's name, too: one of each."""
    port: int


@contextmanager
def running_apache_kafka(
    directory: Path,
    *,
    brokers: int = 1,
    version: str = VERSION,
    heap_megabytes: int = 256,
    properties: Mapping[str, str] | None = None,
    listeners: Sequence[Listener] = (),
) -> Iterator[KafkaServer]:
    """Run `brokers` nodes on `directory`, with what an earlier run left there; ports are any free ones.

    `properties` go over the settings made here; what `listeners` need (`listener.name.ssl.…`) is among them.
    Raises ServerUnavailable.
    """
    ports = free_ports(2 * brokers)
    nodes = [
        Node(number, port, controller_port, directory.absolute() / f"node-{number}")
        for number, port, controller_port in zip(count(1), ports[::2], ports[1::2], strict=False)
    ]
    command = (
        java(),
        "-cp",
        f"{jars(version)}/*",
        f"-Dlog4j2.configurationFile={APACHE / 'log4j2.properties'}",
    )
    for node in nodes:
        node.directory.mkdir(parents=True, exist_ok=True)
        settings = (
            loopback_settings(node, nodes, listeners) | common_settings(brokers) | dict(properties or {})
        )
        (node.directory / "server.properties").write_text(_as_text(settings))
    _format(nodes, directory / "cluster.id", command)
    children = [_child(node, (*command, *JVM, f"-Xmx{heap_megabytes}m")) for node in nodes]
    try:
        for child in children:
            child.launch()
        for child in children:
            child.await_answer()
        _await_everyone(nodes)
        yield KafkaServer(
            tuple(
                Broker(node.number, node.port, child.kill, child.start)
                for node, child in zip(nodes, children, strict=True)
            ),
            transactions=True,
        )
    finally:
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.stop()


def common_settings(brokers: int) -> dict[str, str]:
    """Return what holds for every node of a cluster of that size, wherever it runs."""
    majority = brokers // 2 + 1
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "auto.create.topics.enable": "false",
        "default.replication.factor": f"{brokers}",
        "min.insync.replicas": f"{majority}",
        "offsets.topic.replication.factor": f"{brokers}",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": f"{brokers}",
        "transaction.state.log.min.isr": f"{majority}",
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        # Records have their events' times, and events may be of any age: room is what bounds a partition, not time.
        "log.retention.ms": "-1",
        "log.retention.bytes": f"{256 * 1024**2}",
        # Half of the heap, by default: a restart with a thousand partitions to look through then runs out of it.
        "log.cleaner.dedupe.buffer.size": f"{16 * 1024**2}",
        # A killed broker is missed after 4 s instead of 9: tests wait for it.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
    }


def loopback_settings(
    node: Node, nodes: Sequence[Node], listeners: Sequence[Listener] = ()
) -> dict[str, str]:
    """Return the identity and the addresses of one node, all of them on 127.0.0.1."""
    named = [Listener("PLAINTEXT", node.port), *listeners]
    clients = ",".join(f"{one.protocol}://{LOOPBACK}:{one.port}" for one in named)
    protocols = ",".join(f"{one.protocol}:{one.protocol}" for one in named)
    return {
        "node.id": f"{node.number}",
        "controller.quorum.voters": ",".join(f"{n.number}@{LOOPBACK}:{n.controller_port}" for n in nodes),
        "listeners": f"{clients},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "advertised.listeners": clients,
        "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
        "log.dirs": f"{node.directory / 'data'}",
    }


def new_cluster_id() -> str:
    """Return 16 random bytes as Kafka writes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _as_text(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _format(nodes: Sequence[Node], id_file: Path, command: Sequence[str]) -> None:
    """Prepare the data folders that are not prepared yet; a second try goes on where one was cut."""
    new = [node for node in nodes if not (node.directory / "data" / "meta.properties").exists()]
    if new and not id_file.exists():
        id_file.write_text(new_cluster_id())

    def prepare(node: Node) -> None:
        argv = [*command, *JVM, FORMAT_HEAP, "kafka.tools.StorageTool", "format"]
        argv += [f"--cluster-id={id_file.read_text()}", "--config", str(node.directory / "server.properties")]
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=FORMAT_SECONDS)
        except subprocess.CalledProcessError as error:
            said = f"{error.stdout}{error.stderr}"
            raise ServerUnavailable(f"Kafka cannot prepare {node.directory}: {said}") from error
        except subprocess.TimeoutExpired as error:
            raise ServerUnavailable(f"Kafka did not prepare {node.directory} in time: try again.") from error

    with ThreadPoolExecutor(len(nodes)) as threads:
        list(threads.map(prepare, new))


def _child(node: Node, command: Sequence[str]) -> Child:
    return Child(
        Program(
            name=f"kafka-{node.number}",
            directory=node.directory,
            argv=(*command, "kafka.Kafka", str(node.directory / "server.properties")),
            ports=(node.port, node.controller_port),
            answers=lambda: node.number in nodes_seen_by(node.port),
            start_seconds=START_SECONDS,
            stop_seconds=STOP_SECONDS,
        )
    )


def _await_everyone(nodes: Sequence[Node]) -> None:
    """Return when every node knows of every other: only then can a topic have a replica on each."""
    everyone = frozenset(node.number for node in nodes)
    deadline = time.monotonic() + START_SECONDS
    while any(nodes_seen_by(node.port) != everyone for node in nodes):
        if time.monotonic() > deadline:
            raise ServerUnavailable(f"The brokers did not find each other within {START_SECONDS:g} s.")
        time.sleep(POLL_SECONDS)
