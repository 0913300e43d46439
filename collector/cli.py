"""The `collector` command."""

import asyncio
from functools import partial

import typer
from redis.exceptions import RedisError

from collector.links_cli import links_app
from collector.ports import open_ports
from collector.queue import open_redis
from collector.serve import serve, supervise
from collector.settings import CollectorSettings
from collector.tls import Certificates
from links.store import LinkStore, LinkStoreError
from process.board import Board
from process.run import FAILED, CannotStartError, give_up, run, settings_or_exit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers campaign links and records their clicks.",
)
app.add_typer(links_app, name="links")


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
        raise typer.Exit(supervise(settings, ports, board))
    run(partial(serve, settings, ports, board))


@app.command("check")
def check_command() -> None:
    """Tell whether everything the collector needs is there and right: one line a finding, with the cure."""
    settings = settings_or_exit(CollectorSettings)
    findings = asyncio.run(_findings(settings))
    for finding in findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(FAILED)
    typer.echo("everything the collector needs is there")


async def _findings(settings: CollectorSettings) -> list[str]:
    findings = []
    for number, url in enumerate(settings.redis_urls, 1):
        redis = open_redis(url, tls_insecure=settings.redis_tls_insecure)
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            findings.append(f"Redis {number} does not answer ({error}): start it, or mend REDIS_URL.")
        finally:
            await redis.aclose()
    try:
        store = LinkStore(settings.database_url.get_secret_value())
        try:
            await store.prepare()
        finally:
            await store.close()
    except LinkStoreError as error:
        findings.append(f"{error}: mend DATABASE_URL.")
    if settings.tls:
        try:
            Certificates(settings)
        except CannotStartError as error:
            findings.append(str(error))
    try:
        settings.journal_dir.mkdir(parents=True, exist_ok=True)
        probe = settings.journal_dir / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        findings.append(f"The journal cannot be written ({error}): mend JOURNAL_DIR.")
    return findings


def main() -> None:
    """Run the command."""
    app()
