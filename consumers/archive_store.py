"""Where the archive is: a folder of this machine, S3, Google Cloud Storage or Azure, by one URL.

What is made is there whole or not at all, and only where nothing was: all that the archive asks of a store.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url
from pydantic import SecretStr

from consumers.sink import SinkAwayError

SCHEMES: Final = frozenset({"", "file", "s3", "gs", "az"})

_CLIENT: Final = {
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=60),  # for a whole request: 16 MB at 300 kB/s
}
_RETRY: Final = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
"""Then the loop's own, longer pauses."""

_LISTED_AT_ONCE: Final = 1000
_MOST_REASON: Final = 500
"""Characters of what a store says."""


class ArchiveStore:
    """The store behind ARCHIVE_URL. Each method may raise SinkAwayError."""

    def __init__(self, url: SecretStr) -> None:
        self._root, self._store = _open(url.get_secret_value())

    async def create(self, path: str, content: bytes) -> bool:
        """Make a file, whole or not at all; tells whether there was none of that name."""
        with _said(f"{path} cannot be written"):
            try:
                await obstore.put_async(self._store, path, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                created = False
            else:
                created = True
            if self._root is not None:  # also if another made it: it may not have come so far
                await asyncio.to_thread(_to_disk, self._root, path)
            return created

    async def read(self, path: str) -> bytes | None:
        """Give a file's content, None if there is none."""
        with _said(f"{path} cannot be read"):
            try:
                found = await obstore.get_async(self._store, path)
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def folders(self, folder: str) -> list[str]:
        """Give the paths of a folder's folders, in order."""
        with _said("the archive cannot be listed"):
            found = await obstore.list_with_delimiter_async(self._store, folder)
            return sorted(found["common_prefixes"])

    async def files(self, folder: str) -> list[tuple[str, int]]:
        """Give path and size of all files below a folder, in order."""
        with _said("the archive cannot be listed"):
            listing = obstore.list(self._store, folder, chunk_size=_LISTED_AT_ONCE)
            return sorted([(file["path"], file["size"]) async for files in listing for file in files])

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove files; one that is not there is fine."""
        for path in paths:
            with _said(f"{path} cannot be removed"):
                try:
                    await obstore.delete_async(self._store, path)
                except FileNotFoundError:
                    continue


def _open(url: str) -> tuple[Path | None, ObjectStore]:
    """Open a store; gives its root, too, where that is a folder. Raises SinkAwayError."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        root = Path(unquote(parts.path) if parts.scheme else url).absolute()
        with _said("the archive's folder cannot be used"):
            return root, LocalStore(root, mkdir=True)
    options = dict(parse_qsl(parts.query))
    insecure = options.get("endpoint", "").startswith("http://")
    arguments: dict[str, Any] = {
        "config": options,  # the store itself says which it knows
        "client_options": {**_CLIENT, "allow_http": insecure},
        "retry_config": _RETRY,
    }
    with _said("ARCHIVE_URL cannot be used"):
        return None, from_url(parts._replace(query="").geturl(), **arguments)


def _to_disk(root: Path, path: str) -> None:
    """Have a file, and the folders it is in, on the disk before anything is built on it."""
    file = root / path
    for one in (file, *list(file.parents)[: path.count("/") + 1]):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:_MOST_REASON] or repr(error)
        raise SinkAwayError(f"{what}: {reason}") from error
