"""How far a download is: a bar on a terminal, four plain lines everywhere else, on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from geoip.server import OnProgress


@contextmanager
def shown(what: str) -> Iterator[OnProgress]:
    """Show the progress that the given function is told."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda have, whole: progress.update(task, completed=have, total=whole)


def _lines(what: str) -> OnProgress:
    said = 0

    def say(have: int, whole: int | None) -> None:
        nonlocal said
        quarter = 4 * have // whole if whole else 0
        if quarter > said:
            said = quarter
            typer.echo(f"{what}: {25 * quarter} % of {(whole or 0) / 1e6:.1f} MB", err=True)

    return say
