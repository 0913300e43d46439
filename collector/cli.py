"""The `collector` command."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from collector.queue import open_redis
from collector.serve import listen, serve, supervise
from collector.settings import CollectorSettings
from links.link import InvalidLinkError, Link, link_from_json
from links.store import LinkStore, LinkStoreError
from process.run import FAILED, CannotStartError, give_up, run, settings_or_exit

Answer = TypeVar("Answer")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers campaign links and records their clicks.",
)
links_app = typer.Typer(no_args_is_help=True, help="Campaign links from the shell.")
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
    store = LinkStore(settings.database_url.get_secret_value())
    try:
        await store.prepare()
    except LinkStoreError as error:
        findings.append(f"{error}: mend DATABASE_URL.")
    finally:
        await store.close()
    try:
        settings.journal_dir.mkdir(parents=True, exist_ok=True)
        probe = settings.journal_dir / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        findings.append(f"The journal cannot be written ({error}): mend JOURNAL_DIR.")
    return findings


@links_app.command("import")
def import_links(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON Lines: one link a line.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is wrong.")] = False,
) -> None:
    """Insert or replace links by id: all of them, or none if one is wrong."""
    links: list[Link] = []
    wrong = 0
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            links.append(link_from_json(line))
        except InvalidLinkError as error:
            typer.echo(f"{file}:{number}: {error}", err=True)
            wrong += 1
    if wrong:
        give_up(f"{wrong} of {wrong + len(links)} links are wrong; nothing was imported.", FAILED)
    if not dry_run:
        _with_store(lambda store: store.save(links))
    typer.echo(f"{len(links)} links {'are fine' if dry_run else 'imported'}")


def _with_store(use: Callable[[LinkStore], Awaitable[Answer]]) -> Answer:
    """Do one thing with the links of DATABASE_URL, or say what is wrong and exit with 1."""
    settings = settings_or_exit(CollectorSettings)

    async def use_it() -> Answer:
        store = LinkStore(settings.database_url.get_secret_value())
        try:
            await store.prepare()
            return await use(store)
        finally:
            await store.close()

    try:
        return asyncio.run(use_it())
    except (LinkStoreError, InvalidLinkError) as error:
        give_up(str(error), FAILED)


@links_app.command("list")
def list_links(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False
) -> None:
    """List the links."""
    links = sorted(_with_store(lambda store: store.changes_since(0)).links, key=lambda link: link.id)
    if as_json:
        for link in links:
            typer.echo(json.dumps(msgspec.to_builtins(link), ensure_ascii=False))
        return
    table = Table("id", "slug", "campaign", "network", "targets")
    for link in links:
        targets = ", ".join(f"{platform} → {target}" for platform, target in link.target_url.items())
        table.add_row(str(link.id), link.slug or "", link.campaign or "", link.network or "", targets)
    Console().print(table)


def main() -> None:
    """Run the command."""
    app()
