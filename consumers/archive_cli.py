"""`consumers reconcile` and `consumers replay`: is every event everywhere, and the way back."""

import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final, NoReturn

import typer
from aiokafka.errors import KafkaError
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from consumers.archive_range import ArchiveRange
from consumers.archive_store import ArchiveStore
from consumers.event_ids import EventIds, event_ids
from consumers.identity import Range, Side
from consumers.kafka_range import OnProgress, kafka_records
from consumers.reconcile import NAMES, NotConfiguredError, Reconciliation
from consumers.replay import QUEUE_ID, Replay
from consumers.settings import ConsumersSettings
from consumers.sink import SinkAwayError
from kafkastore.connection import PublishError
from kafkastore.publisher import open_publisher
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import ensure_topics, topics_of
from links.database import LinkStoreError
from process.run import FAILED, WRONG_USE, CannotStartError, give_up, run, settings_or_exit, stop_on_signals
from process.terminal import progress

_SHOWN: Final = 50
"""Differences without --json."""

_SETTLING: Final = timedelta(minutes=1)
"""Beside ARCHIVE_SECONDS: within it an event is everywhere, if everything runs."""


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("this is no 2026-01-31 or 2026-01-31T12:00:00Z") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


From = Annotated[
    datetime,
    typer.Option("--from", parser=_moment, metavar="TIME", help="A day or a time; UTC without a zone."),
]
To = Annotated[
    datetime | None,
    typer.Option(
        "--to", parser=_moment, metavar="TIME", help="Without the moment itself; none: a few minutes ago."
    ),
]


def reconcile_command(
    begin: From,
    end: To = None,
    *,
    sides: Annotated[
        list[Side] | None,
        typer.Option("--side", help="Compare only these; none: all that are configured."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Every difference, a JSON object a line, and the counts behind.")
    ] = False,
) -> None:
    """Say which events of a range of time Kafka, archive, ClickHouse and SQL have and lack; 1 if they differ."""
    kafka, settings = settings_or_exit(KafkastoreSettings), settings_or_exit(ConsumersSettings)
    when = _range(begin, end, settings)
    _run(partial(_reconcile, kafka, settings, when, sides or [], as_json=as_json))


def replay_command(
    begin: From,
    end: To = None,
    *,
    topics: Annotated[
        list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Only these; none: all of ours.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what Kafka has. Each run puts it there once more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be put back.")] = False,
) -> None:
    """Put archived events of a range of time back into Kafka, those that it lacks. May be ended and repeated."""
    kafka, settings = settings_or_exit(KafkastoreSettings), settings_or_exit(ConsumersSettings)
    known = topics_of(kafka)
    if unknown := set(topics or ()) - set(known):
        give_up(f"No topic of ours: {', '.join(sorted(unknown))}. Ours are {', '.join(known)}.", WRONG_USE)
    when = _range(begin, end, settings)
    _run(
        partial(
            _replay,
            kafka,
            settings.archive_url,
            when,
            topics or known,
            everything=everything,
            dry_run=dry_run,
        )
    )


async def _reconcile(
    kafka: KafkastoreSettings, settings: ConsumersSettings, when: Range, wanted: list[Side], *, as_json: bool
) -> int:
    reconciliation = Reconciliation(kafka, settings, when)
    sides = await reconciliation.sides(wanted)
    with event_ids() as ids:
        for side in sides:
            with _progress(NAMES[side]) as on_progress:
                await reconciliation.read(side, ids, on_progress)
        (_print_json if as_json else _print)(ids, sides)
        equal = not any(True for _ in islice(ids.differences(sides), 1))
    return 0 if equal and not reconciliation.damaged else FAILED


async def _replay(
    kafka: KafkastoreSettings,
    archive_url: SecretStr,
    when: Range,
    topics: list[str],
    *,
    everything: bool,
    dry_run: bool,
) -> int:
    stop = stop_on_signals()
    archive = ArchiveRange(ArchiveStore(archive_url), [kafka.kafka_prefix + topic for topic in topics], when)
    async with AsyncExitStack() as opened:
        ids = opened.enter_context(event_ids())
        publisher = None
        if not dry_run:
            await ensure_topics(kafka)  # of a Kafka that lost everything
            publisher = await opened.enter_async_context(open_publisher(kafka, QUEUE_ID))
        replay = Replay(kafka.kafka_prefix, ids, everything=everything)
        if not everything:
            with _progress(NAMES[Side.KAFKA]) as on_progress:
                await replay.note(kafka_records(kafka, topics_of(kafka), when, on_progress), stop.is_set)
        with _progress(NAMES[Side.ARCHIVE]) as on_progress:
            ended = await replay.run(archive, publisher, stop.is_set, on_progress)
    verb = "would be put back" if dry_run else "put back"
    counts = ", ".join(f"{topic} {count}" for topic, count in sorted(replay.put_back.items()))
    typer.echo(f"{replay.put_back.total()} events {verb}{counts and ': '}{counts}")
    if replay.impossible:
        typer.echo(
            f"{replay.impossible} records have no value, or a header without one: they stay out", err=True
        )
    if not ended:
        typer.echo("Told to stop: say the same again for the rest.", err=True)
    return 0 if ended and not archive.damaged else FAILED


def _print(ids: EventIds, sides: list[Side]) -> None:
    table = Table("side", "records", "events", "lacks")
    for side in sides:
        table.add_row(NAMES[side], *map(str, (ids.records[side], ids.events(side), ids.lacking(side))))
    Console().print(table)
    for number, one in enumerate(ids.differences(sides)):
        if number == _SHOWN:
            typer.echo(f"there are more than {_SHOWN}: --json gives all")
            break
        has, lacks = (", ".join(NAMES[side] for side in some) for some in (one.has, one.lacks))
        typer.echo(f"{one.event_id} {one.topic}: in {has}; not in {lacks}")


def _print_json(ids: EventIds, sides: list[Side]) -> None:
    for one in ids.differences(sides):
        has, lacks = ([side.value for side in some] for some in (one.has, one.lacks))
        said = {"event_id": one.event_id, "topic": one.topic, "has": has, "lacks": lacks}
        typer.echo(json.dumps(said))
    counts = {
        side.value: {
            "records": ids.records[side],
            "events": ids.events(side),
            "lacks": ids.lacking(side),
        }
        for side in sides
    }
    typer.echo(json.dumps({"sides": counts}))


def _run(work: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Do it, or say in one sentence why not, and exit."""

    async def do_it() -> int:
        try:
            return await work()
        except (SinkAwayError, PublishError, LinkStoreError, NotConfiguredError) as error:
            raise CannotStartError(f"{error}.") from None
        except KafkaError as error:
            raise CannotStartError(f"Kafka does not answer ({error!r}): say the same again.") from None

    run(do_it)


def _range(begin: datetime, end: datetime | None, settings: ConsumersSettings) -> Range:
    settled = datetime.now(UTC) - timedelta(seconds=settings.archive_seconds) - _SETTLING
    when = Range(begin, end or settled)
    if when.begin >= when.end:
        give_up(f"There is no time between {when.begin:%FT%TZ} and {when.end:%FT%TZ}.", WRONG_USE)
    return when


@contextmanager
def _progress(what: str) -> Iterator[OnProgress]:
    """Show how far it is, on a terminal."""
    with progress() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
