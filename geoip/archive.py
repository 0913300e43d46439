"""The .mmdb out of a .tar.gz: its bytes go where we say, whatever names, links and sizes the archive claims."""

import gzip
import hashlib
import tarfile
import zlib
from itertools import islice
from pathlib import Path
from shutil import copyfileobj
from typing import Final

MEMBERS: Final = 100
"""Looked at; MaxMind's archives have four."""

HEADER_BYTES: Final = 1024**2
"""Of one read, so of one header too: tarfile takes any length that a long name claims into memory."""

OTHERS_BYTES: Final = 16 * 1024**2
"""Of all that is in the archive beside the table: licence, copyright and readme are some KB."""

_BROKEN: Final = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(ValueError, OverflowError, RecursionError),  # of headers with impossible numbers, or without end
)


class ArchiveError(Exception):
    """There is no table in the archive; the text is a clause that says why."""


def sha256_of(archive: Path) -> str:
    """Give the file's SHA-256 in lower-case hex."""
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, table: Path, most_bytes: int) -> None:
    """Write the first .mmdb of a .tar.gz into the file `table`; raises ArchiveError, OSError of the disk."""
    try:
        with (
            _Unpacked(archive, most_bytes + OTHERS_BYTES) as unpacked,
            tarfile.open(fileobj=unpacked, mode="r:") as tar,
        ):
            for member in islice(tar, MEMBERS):
                if not member.isreg() or not member.name.endswith(".mmdb"):
                    continue
                if member.size > most_bytes:
                    raise ArchiveError(
                        f"its table has {member.size} bytes, more than the {most_bytes} allowed"
                    )
                source = tar.extractfile(member)
                if source is not None:
                    with source, table.open("wb") as file:
                        copyfileobj(source, file, HEADER_BYTES)
                    return
    except _BROKEN as error:
        raise ArchiveError(f"it is no whole .tar.gz ({type(error).__name__})") from error
    raise ArchiveError(f"there is no .mmdb among its first {MEMBERS} members")


class _Unpacked(gzip.GzipFile):
    """A tar that is read forward, a little at a time and to a bound, so that no header makes us loop or swell."""

    def __init__(self, archive: Path, most_bytes: int) -> None:
        super().__init__(archive, "rb")
        self._most_bytes = most_bytes

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and not self.tell() <= offset <= self._most_bytes:
            raise tarfile.ReadError("a member leads backwards, or too far")
        return super().seek(offset, whence)
