"""What a person at a terminal sees of rows and of progress; everywhere else there is plain text, or nothing.

rich is loaded when there is something to show: it costs 5 MB, and most processes have nobody to show anything to.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def show_rows(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Show a table on a terminal; elsewhere one row a line, separated by tabs. Cells are one line each."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(*titles)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    for row in (titles, *rows):
        typer.echo("\t".join(row))


@contextmanager
def progress() -> "Iterator[Progress]":
    """Show how far something is, on stderr, where that is a terminal; the bars are gone with the end."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as shown:
        yield shown
