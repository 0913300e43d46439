"""The `collector` command."""

import asyncio
from functools import partial

import typer
from redis.exceptions import RedisError

from collector.links_cli import links_app
from collector.queue import open_redis
from collector.serve import listen, serve, supervise
from collector.settings import CollectorSettings
from links.store import LinkStore, LinkStoreError
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
        listener = listen(settings.host, settings.port)
    except CannotStartError as error:
        give_up(str(error), FAILED)
    if settings.web_concurrency > 1:
        raise typer.Exit(supervise(settings, listener))
    run(partial(serve, settings, listener))


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
