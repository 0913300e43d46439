"""`kafkastore dead …`: what became no event, why, and the way back, from the shell.

Only `redrive` and `drop` change anything; each says what it did, and may be ended at any moment.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, NoReturn

import typer
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from redis.exceptions import RedisError

from kafkastore.connection import PublishError
from kafkastore.dead_count import Tally, reach_of
from kafkastore.dead_piles import (
    CLICK_INVALID,
    DeadPartition,
    MarkMovedError,
    Pile,
    UnknownTopicError,
    open_piles,
)
from kafkastore.dead_view import (
    letter_record,
    note_on,
    number_of_letters,
    readable,
    show_table,
    tally_record,
    when,
)
from kafkastore.redrive import QueueFullError, move
from kafkastore.settings import KafkastoreSettings
from process.run import FAILED, WRONG_USE, CannotStartError, give_up, run, settings_or_exit
from process.terminal import progress

dead_app = typer.Typer(no_args_is_help=True, help="Dead letters: lines that are no events, with the reason.")

Topic = Annotated[
    str | None,
    typer.Argument(
        metavar="[TOPIC]", help=f"`clicks` or `clicks.dead`, or `{CLICK_INVALID}`; none: all of ours."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
Recreated = Annotated[
    bool, typer.Option("--recreated", help="The topic was deleted and made anew: all its letters are new.")
]


@dead_app.command("list")
def list_letters(topic: Topic = None, *, as_json: AsJson = False) -> None:
    """Count what lies dead, by topic and reason."""

    async def count(piles: Sequence[Pile]) -> int:
        tallies: dict[str, Tally] = {}
        for pile in piles:
            async for letter in pile.letters():
                tallies.setdefault(pile.topic, Tally()).add(letter)
        if as_json:
            for name, tally in tallies.items():
                typer.echo(json.dumps({"topic": name, **tally_record(tally)}))
        elif tallies:
            rows = (
                (name, reason, str(count.letters), when(count.oldest_ms), when(count.newest_ms))
                for name, tally in tallies.items()
                for reason, count in tally.reasons.items()
            )
            show_table(("topic", "reason", "letters", "oldest", "newest"), rows)
        else:
            typer.echo("no dead letters", err=True)
        return 0

    _with_dead(topic, count)


@dead_app.command("show")
def show_letters(
    topic: Topic = None,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Letters to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show letters, the oldest of each partition first. They hold full addresses."""

    async def show(piles: Sequence[Pile]) -> int:
        shown = 0
        for pile in piles:
            async for letter in pile.letters():
                if shown == limit:
                    typer.echo(f"there are more than {limit}: --limit shows them", err=True)
                    return 0
                typer.echo(json.dumps(letter_record(letter)) if as_json else readable(letter))
                shown += 1
        if not shown:
            typer.echo("no dead letters", err=True)
        return 0

    _with_dead(topic, show)


@dead_app.command("redrive")
def redrive_letters(
    topic: Topic = None,
    *,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Only if no other letters lie in front.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    recreated: Recreated = False,
) -> None:
    """Put the lines back into the queue, once each; what is still no event becomes a dead letter again."""

    async def redrive(piles: Sequence[Pile]) -> int:
        parts = await _parts(piles, reason=reason, recreated=recreated)
        if not dry_run:
            await _move(parts, redrive=True)
        total = sum(letters for _, letters in parts)
        verb = "would be" if dry_run else "is" if total == 1 else "are"
        typer.echo(f"{number_of_letters(total)} {verb} back in the queue")
        return 0

    _with_dead(topic, redrive)


@dead_app.command("drop")
def drop_letters(
    topic: Topic = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    recreated: Recreated = False,
) -> None:
    """Pass over all letters that are there now: `list` and `redrive` forget them. Asks first."""
    if not yes and not sys.stdin.isatty():
        give_up("Nobody is here to be asked: say --yes to drop the letters.", WRONG_USE)

    async def drop(piles: Sequence[Pile]) -> int:
        parts = await _parts(piles, reason=None, recreated=recreated)
        total = sum(letters for _, letters in parts)
        if total and not yes:
            topics = sorted({pile.topic for pile, letters in parts if letters})
            kept = f"Kafka keeps them until its retention ends; those of {CLICK_INVALID} are gone at once."
            if not typer.confirm(f"Drop {number_of_letters(total)} of {', '.join(topics)}? {kept}", err=True):
                typer.echo("Nothing was dropped.", err=True)
                return FAILED
        await _move(parts, redrive=False)
        typer.echo(f"{number_of_letters(total)} dropped")
        return 0

    _with_dead(topic, drop)


def _with_dead(topic: str | None, use: Callable[[Sequence[Pile]], Awaitable[int]]) -> NoReturn:
    """Do one thing with what lies dead, or say in one sentence why not, and exit."""
    settings = settings_or_exit(KafkastoreSettings)

    async def use_it() -> int:
        try:
            async with open_piles(settings, topic) as piles:
                for pile in piles:
                    if note := note_on(pile):
                        typer.echo(note, err=True)
                return await use(piles)
        except UnknownTopicError as error:
            typer.echo(f"{error}.", err=True)
            return WRONG_USE
        except BrokenPipeError:
            raise  # whoever reads us has seen enough, as `head` does
        except (MarkMovedError, QueueFullError, RedisError, PublishError, KafkaError, OSError) as error:
            raise CannotStartError(_sentence(error, settings)) from None

    run(use_it)


def _sentence(error: Exception, settings: KafkastoreSettings) -> str:
    match error:
        case MarkMovedError():
            return (
                f"Another process redrives or drops the same letters ({error}): see `kafkastore dead list`."
            )
        case QueueFullError():
            return f"{error}: see that `kafkastore run` runs, then redrive the rest."
        case RedisError():
            cure = "see that it runs and has memory left, that REDIS_URL names it, and say the same again"
            return f"Redis does not answer, or refuses ({error}): {cure}."
        case PublishError():
            return f"{error}."
        case OffsetOutOfRangeError():
            return (
                "Kafka's retention has just removed letters that were about to be read: say the same again."
            )
        case _:
            cure = "see that it runs, that KAFKA_URL names it, and say the same again"
            return f"Kafka at {settings.kafka_url} does not answer ({error!r}): {cure}."


async def _parts(piles: Iterable[Pile], *, reason: str | None, recreated: bool) -> list[tuple[Pile, int]]:
    """Count how many letters of each pile are to be moved; raises CannotStartError where that is not allowed."""
    parts = []
    behind = 0
    for pile in piles:
        reach = await reach_of(pile.letters(), reason)
        if reach.letters and not recreated and isinstance(pile, DeadPartition) and pile.span.recreated:
            raise CannotStartError(f"Nothing was done: {note_on(pile)}")
        behind += reach.behind
        parts.append((pile, reach.letters))
    if behind:
        raise CannotStartError(
            f"Nothing was done: {number_of_letters(behind)} with this reason lie behind others, and a mark leaves "
            "none out. Without --reason all come back, and what is still no event becomes a dead letter again."
        )
    return parts


async def _move(parts: Sequence[tuple[Pile, int]], *, redrive: bool) -> None:
    """Redrive or drop, with a bar on a terminal; says how far it came if it ends early."""
    total = sum(letters for _, letters in parts)
    moved = 0

    def on_moved(letters: int) -> None:
        nonlocal moved
        moved += letters
        bar.advance(task, letters)

    try:
        with progress() as bar:
            task = bar.add_task("redriving" if redrive else "dropping", total=total)
            for pile, letters in parts:
                if letters:
                    await move(pile, letters, redrive=redrive, on_moved=on_moved)
                elif isinstance(pile, DeadPartition) and pile.span.removed:
                    await pile.pass_over_removed()
    finally:
        if moved < total:
            done = "are back in the queue" if redrive else "are dropped"
            typer.echo(
                f"at least {moved} of {number_of_letters(total)} {done}: `kafkastore dead list` shows the rest.",
                err=True,
            )
