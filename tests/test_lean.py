"""What a process leaves out of its memory: nobody misses it, and who asks for it gets it all the same."""

import subprocess
import sys

import pytest


def says(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("command", ["collector", "kafkastore"])
def test_a_process_loads_neither_the_orm_nor_colours(command):
    loaded = says(f"import sys, {command}.cli; print(*sys.modules)")
    assert {"structlog", f"{command}.settings"} <= set(loaded)
    assert {"sqlalchemy.orm", "rich", "alembic", "asyncpg", "segno"}.isdisjoint(loaded)


def test_whoever_imports_what_was_left_out_gets_it():
    program = (
        "import links.store, process.logs\n"
        "from rich.console import Console\n"
        "from sqlalchemy.ext.asyncio.session import AsyncSession\n"
        "print(Console.__name__, AsyncSession.__name__)"
    )
    assert says(program) == ["Console", "AsyncSession"]


def test_what_is_there_already_stays():
    program = "import sqlalchemy.ext.asyncio as library, links.store\nprint(library.AsyncSession.__name__)"
    assert says(program) == ["AsyncSession"]


def test_nothing_is_in_what_was_left_out():
    program = (
        "from process.lean import without\n"
        "with without('wave'):\n"
        "    import wave\n"
        "    print(wave.open, hasattr(wave, '__path__'))\n"
        "import wave\n"
        "print(callable(wave.open))"
    )
    assert says(program) == ["None", "False", "True"]
