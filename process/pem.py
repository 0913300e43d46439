"""PEM texts lent to OpenSSL, which Python lets read files only."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def as_file(pem: bytes) -> Iterator[str]:
    """Lend PEM bytes as the path of a file: on Linux of one that never is on a disk, which may be read-only."""
    file: IO[bytes]
    if sys.platform == "linux":
        with open(os.memfd_create("pem"), "wb", buffering=0) as file:  # noqa: PTH123 (a descriptor, no path)
            file.write(pem)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:  # for its owner only
            file.write(pem)
            yield file.name
