"""`geoip update`: the latest table fetched, checked, and put in the old one's place in one step.

Whatever goes wrong, the old table stays as it is. Beside the table NAME there are `.NAME.lock`, while a download is
under way `.NAME.<checksum>.part`, which the next run goes on with, and for a moment `.NAME.new`.

Which release a table is tells its modification time, which is the server's Last-Modified to the second. Equal, not
"no older": a file copied by hand has any time at all, and what the server has is the latest even if it went back.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from geoip.archive import ArchiveError, sha256_of, unpack
from geoip.database import Database, DatabaseError, open_database
from geoip.server import BOUNDS, Bounds, OnProgress, Release, Server, open_server
from geoip.source import Source, UpdateError
from process.tasks import within

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Updated:
    """The table that is in place now, and whether it came just now."""

    table: Database
    replaced: bool


async def update(
    source: Source,
    path: Path,
    *,
    force: bool = False,
    on_progress: OnProgress = lambda _have, _whole: None,
    bounds: Bounds = BOUNDS,
) -> Updated:
    """Bring the table at `path` to the latest release, or leave it; raises UpdateError.

    `force` fetches the release that is there already too. Work on the disk blocks, and is bounded by sizes only.
    """
    path = _target(path)
    with _disk(path), _alone(path):
        async with open_server(source, bounds) as server:
            try:
                return await within(bounds.whole_seconds, _update(server, path, on_progress, force=force))
            except TimeoutError:
                raise UpdateError(
                    f"{source.archive.host} needs more than {bounds.whole_seconds / 60:g} minutes: "
                    "the next run goes on with what has arrived."
                ) from None


async def _update(server: Server, path: Path, on_progress: OnProgress, *, force: bool) -> Updated:
    release = await server.latest()
    table = _table_of(release, path)
    if table is not None and not force:
        return Updated(table, replaced=False)
    checksum = await server.checksum()
    part = path.with_name(f".{path.name}.{checksum[:16]}.part")
    _remove(_parts(path) - {part})  # of releases that nobody will complete
    await server.download(release, part, on_progress)
    return Updated(_taken(part, checksum, path, release, server), replaced=True)


def _table_of(release: Release, path: Path) -> Database | None:
    """Give the table at `path` if it is that release, and can be used."""
    try:
        modified = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        return open_database(path) if modified == release.published else None
    except (FileNotFoundError, DatabaseError):
        return None


def _taken(part: Path, checksum: str, path: Path, release: Release, server: Server) -> Database:
    """Make the table at `path` of the archive; the archive is gone in the end, in place or of no use."""
    new, edition = _new(path), server.source.edition
    try:
        if sha256_of(part) != checksum:
            raise UpdateError(
                f"{edition} does not have the checksum that {server.source.archive.host} gives for it, "
                "so it was thrown away: run this again."
            )
        unpack(part, new, server.bounds.table_bytes)
        table = open_database(new)
        _swap(new, path, release.published)
    except ArchiveError as error:
        raise UpdateError(
            f"{edition} is refused because {error}, and the old table stays: check --url and MAXMIND_URL."
        ) from error
    except DatabaseError as error:
        raise UpdateError(
            f"{edition} is refused because it is damaged or does not say where addresses are, "
            "and the old table stays: take a City or Country edition."
        ) from error
    finally:
        _remove({new, part})
    table.path = path
    return table


def _swap(new: Path, path: Path, published: datetime | None) -> None:
    """Put the file in the other's place, so that it is there after a power cut too, and no reader sees half of it."""
    with new.open("rb") as file:
        if published is not None:
            os.utime(file.fileno(), (published.timestamp(), published.timestamp()))
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other updates of this table out; the lock ends with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpdateError(f"Another update of {path} is under way: let it finish.") from None
        yield


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say what the disk refused; one that is full gets back what we took."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            _remove({_new(path), *_parts(path)})
            raise UpdateError(
                f"There is no room for {path} ({error.strerror}): make some for the archive and the table, "
                "which are beside the old table for a while."
            ) from error
        raise UpdateError(
            f"{path} cannot be written ({error.strerror}): let the user who runs this write in {path.parent}, "
            "or set GEOIP_DB to another place."
        ) from error


def _target(path: Path) -> Path:
    """What is replaced: not a symbolic link, but what it leads to."""
    return path.resolve()


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _parts(path: Path) -> set[Path]:
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.part")
    return {entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)}


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
