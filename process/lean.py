"""What libraries load that none of our processes uses. Left out, it costs no memory: 12 of a collector's 93 MB."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _Absent(ModuleType):
    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)  # so it is no package, and nothing in it can be imported


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Import libraries without some modules of theirs: what they take from these is None, nothing is in these.

    A module that is there already stays, and whoever imports one later gets the real one. For what nobody here uses:
    the libraries keep their None.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update((name, _Absent(name)) for name in absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
