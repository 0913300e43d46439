"""`collector journals`: what waits on this machine's disk, for which Redis, and what to do if that is gone."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from redis.exceptions import RedisError

from collector.journal import Journal, journal_folders, journals_left_behind, look_at
from collector.queue import open_redis, queue_id, queue_keys
from collector.settings import CollectorSettings
from process.run import FAILED, give_up, settings_or_exit
from process.terminal import show_rows

journals_app = typer.Typer(
    no_args_is_help=True, help="Journals on this machine: events that wait for Redis, or are kept a while."
)

LOCK_SECONDS: Final = 3.0
"""A running collector looks at each journal once a second, for a moment: so long we try."""


@journals_app.command("list")
def list_command() -> None:
    """Show every journal under JOURNAL_DIR, and where it goes."""
    settings = settings_or_exit(CollectorSettings)
    queues = asyncio.run(_queues(settings))
    show_rows(("journal", "bytes", "last event", "state", "goes to"), _rows(settings.journal_dir, queues))


@journals_app.command("rebind")
def rebind_command(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[JOURNAL]...", help="Default: every one that is stranded.")
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let stranded journals go to a Redis of today: the one they are bound to is gone, or was emptied.

    May double: what their old Redis handed on before it was lost is shipped again, with the same event ids.
    """
    settings = settings_or_exit(CollectorSettings)
    queues = asyncio.run(_queues(settings))
    wanted = set(ids or ())
    stranded = _stranded(settings.journal_dir, queues, wanted)
    if missing := wanted - stranded.keys():
        _let_go(stranded)
        give_up(f"Not stranded: {', '.join(sorted(missing))}. See: collector journals list", FAILED)
    if not stranded:
        typer.echo("no journal is stranded")
        return
    size = sum(journal.bytes_on_disk() for journal in stranded.values())
    typer.echo(f"{len(stranded)} journals, {size} bytes. What Kafka has of them already will be there twice.")
    if not yes and not typer.confirm("Ship them from their beginning?"):
        _let_go(stranded)
        raise typer.Exit(FAILED)
    for journal in stranded.values():
        journal.unbind()
    _let_go(stranded)
    typer.echo("a running collector takes them up within a second or two")


async def _queues(settings: CollectorSettings) -> dict[str, str]:
    """Give what each queue of ours is called, by its id; ends the command if a Redis does not tell."""
    queues = {}
    for number, url in enumerate(settings.redis_urls, 1):
        redis = open_redis(url, tls_insecure=settings.redis_tls_insecure)
        try:
            for keys in queue_keys(settings.queues):
                queues[await queue_id(redis, keys)] = f"Redis {number}, {keys.list}"
        except (RedisError, OSError) as error:
            give_up(
                f"Redis {number} does not answer ({error}): its journals cannot be told. Start it.", FAILED
            )
        finally:
            await redis.aclose()
    return queues


def _rows(directory: Path, queues: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Describe every journal; one that cannot be read is named, and the others follow."""
    for folder in journal_folders(directory):
        try:
            if looked_at := look_at(folder):
                yield _row(*looked_at, queues)
        except OSError as error:
            yield folder.name, "", "", "cannot be read", str(error)


def _row(journal: Journal, in_use: bool, queues: Mapping[str, str]) -> tuple[str, ...]:
    try:
        bound_to, written = journal.queue_id, journal.last_written()
        return (
            journal.id,
            str(journal.bytes_on_disk()),
            f"{time.time() - written:.0f} s ago" if written else "none yet",
            "in use" if in_use else "left behind",
            "any" if bound_to is None else queues.get(bound_to, "no Redis of ours: stranded"),
        )
    finally:
        journal.release()


def _stranded(directory: Path, queues: Mapping[str, str], wanted: set[str]) -> dict[str, Journal]:
    """Lock and give the journals that are stranded, of those wanted, or of all."""
    deadline = time.monotonic() + LOCK_SECONDS
    stranded: dict[str, Journal] = {}
    while True:
        for journal in journals_left_behind(directory):
            if journal.id not in (wanted or {journal.id}) or not _is_stranded(journal, queues):
                journal.release()
            else:
                stranded[journal.id] = journal
        if (wanted and wanted <= stranded.keys()) or time.monotonic() > deadline:
            return stranded
        time.sleep(0.1)


def _is_stranded(journal: Journal, queues: Mapping[str, str]) -> bool:
    try:
        bound_to = journal.queue_id
    except OSError:
        return False  # `list` says why
    return bound_to is not None and bound_to not in queues


def _let_go(journals: Mapping[str, Journal]) -> None:
    for journal in journals.values():
        journal.release()
