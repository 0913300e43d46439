"""What `collector check` finds: one sentence a thing, with the cure."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from collector.persistence import persistence_of, weaknesses
from collector.queue import open_redis
from collector.settings import CollectorSettings
from collector.tls import Certificates
from links.store import LinkStore, LinkStoreError
from process.crowd import connections_allowed
from process.finding import Finding
from process.run import CannotStartError

_MOUNTS: Final = Path("/proc/self/mounts")
"""Linux's; elsewhere nothing is said about file systems."""

_OF_A_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs"}
)
_ESCAPES: Final = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


async def findings(settings: CollectorSettings) -> AsyncIterator[Finding]:
    """Look at everything the collector needs."""
    for number, url in enumerate(settings.redis_urls, 1):
        async for finding in _redis_findings(settings, number, url):
            yield finding
    try:
        store = LinkStore(settings.database_url.get_secret_value())
        try:
            await store.prepare()
        finally:
            await store.close()
    except LinkStoreError as error:
        yield Finding(f"{error}: mend DATABASE_URL.")
    if settings.tls:
        try:
            Certificates(settings)
        except CannotStartError as error:
            yield Finding(str(error))
    for finding in _journal_findings(settings.journal_dir):
        yield finding
    allowed = connections_allowed(settings.max_connections)
    if allowed < settings.max_connections:
        yield Finding(
            f"The system lets a process open so few files that {allowed} visitors can be connected at once, not "
            f"MAX_CONNECTIONS={settings.max_connections}: raise the hard limit (ulimit -Hn, LimitNOFILE=).",
            fatal=False,
        )


async def _redis_findings(settings: CollectorSettings, number: int, url: str) -> AsyncIterator[Finding]:
    redis = open_redis(url, tls_insecure=settings.redis_tls_insecure)
    try:
        persistence = await persistence_of(redis)
    except (RedisError, OSError) as error:
        yield Finding(f"Redis {number} does not answer ({error}): start it, or mend REDIS_URL.")
        return
    finally:
        await redis.aclose()
    log_wanted_by = "DURABILITY=redis" if settings.durability == "redis" else None
    for weakness in weaknesses(persistence, log_wanted_by=log_wanted_by):
        yield Finding(f"Redis {number} {weakness.text}", fatal=weakness.fatal)


def _journal_findings(directory: Path) -> Iterator[Finding]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        yield Finding(f"The journal cannot be written ({error}): mend JOURNAL_DIR.")
        return
    mounts = os.fsdecode(_MOUNTS.read_bytes()) if _MOUNTS.exists() else ""
    kind = file_system(directory.resolve(), mounts)
    if kind in _OF_A_NETWORK or kind.startswith("fuse."):
        yield Finding(
            f"JOURNAL_DIR is on a file system of a network ({kind}), where a lock may not lock and a visitor waits "
            "for the network: set JOURNAL_DIR to a folder on a disk of this machine."
        )
    elif kind in _IN_MEMORY:
        yield Finding(
            f"JOURNAL_DIR is in memory ({kind}): what is not in Redis goes with the machine. "
            "Set JOURNAL_DIR to a folder on a disk.",
            fatal=False,
        )


def file_system(path: Path, mounts: str) -> str:
    """Give the kind of file system that an absolute path is on; "" if `mounts` (as /proc/mounts) does not say.

    Source: fstab(5), which also says how blanks in a mount point are written.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        _device, mounted_at, kind_here, *_ = line.split(" ")
        for octal, character in _ESCAPES:
            mounted_at = mounted_at.replace(octal, character)
        if path.is_relative_to(mounted_at) and len(mounted_at) >= best:  # of two at one point the later hides
            best, kind = len(mounted_at), kind_here
    return kind
