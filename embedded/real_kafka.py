"""Apache Kafka however this machine can have it: in Docker if an engine answers, else on its Java."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from embedded.apache_kafka import running_apache_kafka
from embedded.docker_kafka import running_docker_kafka
from embedded.kafka import KafkaServer
from embedded.server import ServerUnavailable


@contextmanager
def running_real_kafka(directory: Path, *, brokers: int = 1) -> Iterator[KafkaServer]:
    """Run Apache Kafka; raises ServerUnavailable with the cure. Only Java's keeps its data in `directory`."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_docker_kafka(brokers=brokers))
        except ServerUnavailable:
            server = stack.enter_context(running_apache_kafka(directory, brokers=brokers))
        yield server
