"""What all parts of one run share: how much is measured, one Redis, one Kafka, and databases of links."""

import asyncio
import os
import sqlite3
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rig import CLIENT_CORE, SCRIPTS, SERVER_CORE, lasting_kafka, redis, server
from visitors import AGENTS

from embedded.kafka import KafkaServer
from embedded.ports import free_port
from embedded.redis import RedisServer
from embedded.server import Child
from links.link import link_of
from links.store import LinkStore


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    few_rounds: int
    """Of what takes long by itself."""
    seconds: float
    """Of load in a round; wrk takes whole ones."""
    warm_seconds: float
    events: int
    """Moved in a round."""
    agents: int
    """Known to those who move them."""
    links: int
    most_links: int
    """The largest of the tables that grow."""
    most_lines: int
    """The largest of the backlogs that grow."""
    partitions: tuple[int, ...]
    quick: bool = False


MOST_LINES = int(os.environ.get("MOST_LINES", "1000000"))
"""10,000,000 need 12 GB of memory."""

WHOLE = Effort(4, 3, 3, 2, 50_000, AGENTS, 100_000, 1_000_000, MOST_LINES, (1, 6, 12, 60))
QUICK = Effort(1, 1, 1, 0, 8_000, 1_000, 2_000, 1_000, 10_000, (1, 6), quick=True)


_FIRST_LINK = {
    "id": 1,
    "slug": "link-1",
    "campaign": "Campaign 1",
    "network": "7games",
    "user_id": 9,
    "attribution_window_idfa": 70,
    "attribution_window_fingerprint": 60,
    "target_url": {
        "ios": "https://apps.apple.com/app/id0000001",
        "android": "market://details?id=com.example.game0000001&referrer=utm_source%3Dg",
        "default": "https://www.example.com/landing/0000001",
    },
}
_ANOTHER_LINK = {
    "id": "n",
    "slug": "'link-' || n",
    "campaign": "'Campaign ' || (n % 500)",
    "target_url": "replace(target_url, '0000001', n)",
}
"""What differs, in SQL; all else is the first link's."""


class Shared:
    """Servers that begin when they are first asked for and end with the stack."""

    def __init__(self, stack: ExitStack, effort: Effort) -> None:
        self.effort = effort
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-")))
        self.directory.chmod(0o755)  # PostgreSQL does not run as root
        self._stack = stack
        self._databases: dict[int, str] = {}

    @cached_property
    def redis(self) -> RedisServer:
        """A real Redis on the other core, with a log as production's."""
        return redis(self._stack, self.directory / "redis")

    @cached_property
    def kafka(self) -> KafkaServer:
        """Apache Kafka on the other core."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {CLIENT_CORE})  # which it inherits
        try:
            return self._stack.enter_context(lasting_kafka(self.directory / "kafka"))
        finally:
            os.sched_setaffinity(0, before)

    def collector(
        self, name: str, redis_url: str, *, links: int, core: object = SERVER_CORE, **more
    ) -> Child:
        """Give a `collector serve` with so many links; `more` are variables of its own."""
        directory, port = self.directory / name, free_port()
        environ = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "REDIS_URL": redis_url,
            "DATABASE_URL": self.database(links),
            "JOURNAL_DIR": directory / "journal",
            "TRUSTED_PROXIES": "127.0.0.0/8",
            "ERROR_PAGE_URL": "https://www.example.com/unknown",
        }
        argv = [SCRIPTS / "collector", "serve"]
        tls = "TLS_CERT" in more
        return server(directory, port, argv, environ | more, path="/healthz", tls=tls, core=core)

    def database(self, number: int) -> str:
        """Give the URL of a database with so many links."""
        if number not in self._databases:
            path = self.directory / f"links-{number}.db"
            asyncio.run(_fill(path, number))
            self._databases[number] = f"sqlite:///{path}"
        return self._databases[number]


async def _fill(path: Path, number: int) -> None:
    """Save a link, and let SQLite make the others of it: 100,000 in a second."""
    store = LinkStore(f"sqlite:///{path}")
    await store.prepare()
    if number:
        await store.save([link_of(_FIRST_LINK)])
    await store.close()
    database = sqlite3.connect(path)
    with database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(links)")]
        database.execute(
            "WITH RECURSIVE numbers(n) AS (VALUES (2) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "  # noqa: S608
            f"INSERT INTO links ({', '.join(columns)}) "
            f"SELECT {', '.join(_ANOTHER_LINK.get(name, name) for name in columns)} FROM numbers, links "
            "WHERE links.id = 1 AND n <= ?",
            (number, number),
        )
    database.close()
