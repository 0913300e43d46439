"""`collector journals`: what waits on this machine's disk, for which Redis, and what to do if that is gone."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from redis.exceptions import RedisError

from collector.journal import Journal, all_journals, journals_left_behind
from collector.queue import open_redis, queue_id, queue_keys
from collector.settings import CollectorSettings
from process.run import FAILED, give_up, settings_or_exit

journals_app = typer.Typer(
    no_args_is_help=True, help="Journals on this machine: events that wait for Redis, or are kept a while."
)

LOCK_SECONDS: Final = 3.0
"""A running collector looks at each journal once a second, for a moment: so long we try."""


@dataclass(frozen=True, slots=True)
class Found:
    """A journal as the table shows it."""

    id: str
    bytes: int
    age_seconds: float
    """Since the last event."""
    in_use: bool
    """A process writes it, or ships it."""
    queue: str
    """Where it goes."""


@journals_app.command("list")
def list_command() -> None:
    """Show every journal under JOURNAL_DIR, and where it goes."""
    from rich.console import Console  # noqa: PLC0415 (5 MB that no `collector serve` should pay)
    from rich.table import Table  # noqa: PLC0415

    settings = settings_or_exit(CollectorSettings)
    queues = asyncio.run(_queues(settings))
    table = Table("journal", "bytes", "last event", "state", "goes to", box=None)
    for found in _found(settings.journal_dir, queues):
        state = "in use" if found.in_use else "left behind"
        table.add_row(found.id, str(found.bytes), f"{found.age_seconds:.0f} s ago", state, found.queue)
    Console(soft_wrap=True).print(table)


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


def _found(directory: Path, queues: Mapping[str, str]) -> Iterator[Found]:
    for journal, in_use in all_journals(directory):
        bound_to = journal.queue_id
        goes_to = "any" if bound_to is None else queues.get(bound_to, "no Redis of ours: stranded")
        age = time.time() - journal.last_written()
        yield Found(journal.id, journal.bytes_on_disk(), age, in_use, goes_to)
        journal.release()


def _stranded(directory: Path, queues: Mapping[str, str], wanted: set[str]) -> dict[str, Journal]:
    """Lock and give the journals that are stranded, of those wanted, or of all."""
    deadline = time.monotonic() + LOCK_SECONDS
    stranded: dict[str, Journal] = {}
    while True:
        for journal in journals_left_behind(directory):
            bound_to = journal.queue_id
            if bound_to is None or bound_to in queues or (wanted and journal.id not in wanted):
                journal.release()
            else:
                stranded[journal.id] = journal
        if (wanted and wanted <= stranded.keys()) or time.monotonic() > deadline:
            return stranded
        time.sleep(0.1)


def _let_go(journals: Mapping[str, Journal]) -> None:
    for journal in journals.values():
        journal.release()
