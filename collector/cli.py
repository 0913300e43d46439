"""The `collector` command."""

import asyncio
from functools import partial

import typer

from collector.findings import findings
from collector.journals_cli import journals_app
from collector.links_cli import links_app
from collector.ports import open_ports
from collector.serve import serve, supervise
from collector.settings import CollectorSettings
from process.board import Board
from process.finding import Finding, report
from process.run import FAILED, CannotStartError, give_up, leave, run, settings_or_exit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers campaign links and records their clicks.",
)
app.add_typer(links_app, name="links")
app.add_typer(journals_app, name="journals")


@app.command("serve")
def serve_command() -> None:
    """Serve the public endpoint until told to stop."""
    settings = settings_or_exit(CollectorSettings)
    try:
        ports = open_ports(settings)
    except CannotStartError as error:
        give_up(str(error), FAILED)
    board = Board(settings.web_concurrency)
    if settings.web_concurrency > 1:
        leave(supervise(settings, ports, board))
    run(partial(serve, settings, ports, board))


@app.command("check")
def check_command() -> None:
    """Tell whether everything the collector needs is there and right: one line a finding, with the cure."""
    settings = settings_or_exit(CollectorSettings)
    report(asyncio.run(_all_findings(settings)), "everything the collector needs is there")


async def _all_findings(settings: CollectorSettings) -> list[Finding]:
    return [finding async for finding in findings(settings)]


def main() -> None:
    """Run the command."""
    app()
