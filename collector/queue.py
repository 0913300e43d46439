"""The queue that collector and kafkastore share: its names in Redis, and a client that repeats nothing.

Lines are pushed at the tail of the list `click_queue` and taken from its head. With QUEUES=n there are also
`click_queue:1` … `click_queue:n-1`. Every other key of a queue carries its name as a hash tag, so that one
script may touch them all on Redis Cluster too.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from collector.redis_leader import leader
from process.redis_group import is_group, redis_group

CLICK_QUEUE: Final = "click_queue"

REDIS_TIMEOUT_SECONDS: Final = 1.0
"""A Redis that does not answer within this is away: what waits for it is safe in the journal or the queue."""

_ID: Final = """#!lua flags=allow-oom
local id = redis.call('GET', KEYS[1])
if not id then
  id = ARGV[1]
  redis.call('SET', KEYS[1], id)
end
return id
"""


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The names of one queue's keys."""

    list: str

    def key(self, name: str) -> str:
        """Give the key `name` of this queue, in the hash slot of its list."""
        return f"{{{self.list}}}:{name}"

    @property
    def id(self) -> str:
        """The queue's id, a random UUID that stays with the data wherever the server moves."""
        return self.key("id")

    def position(self, journal_id: str) -> str:
        """How far the journal has arrived in this queue."""
        return self.key(f"journal:{journal_id}")


def queue_keys(queues: int) -> list[QueueKeys]:
    """Name the queues of one Redis."""
    return [QueueKeys(CLICK_QUEUE if number == 0 else f"{CLICK_QUEUE}:{number}") for number in range(queues)]


def open_redis(url: str, *, tls_insecure: bool = False) -> Redis:
    """Give a client of our rules: every wait is bounded, and no command is ever sent twice by the client.

    A command whose reply was lost may have been carried out; whoever sent it asks, and decides.
    """
    insecure = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    options: dict[str, Any] = {
        "socket_timeout": REDIS_TIMEOUT_SECONDS,
        "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
        **(insecure if tls_insecure and url.startswith("rediss") else {}),
    }
    bounds: dict[str, Any] = {
        "max_connections": 16,  # a process has a handful of coroutines that talk to one Redis
        "timeout": REDIS_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_group(url):
        connection_class, made_with = leader(redis_group(url), CLICK_QUEUE, options)
        pool = BlockingConnectionPool(connection_class=connection_class, **bounds, **made_with)
    else:
        pool = BlockingConnectionPool.from_url(url, **bounds, **options)
    return Redis.from_pool(pool)


async def queue_id(redis: Redis, keys: QueueKeys) -> str:
    """Give the queue's id, minting it where there is none; also on a Redis that is full."""
    stored = await redis.register_script(_ID)([keys.id], [str(uuid.uuid4())])
    return str(stored, "ascii")
