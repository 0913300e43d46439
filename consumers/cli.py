"""The `consumers` command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from consumers import archive, attribution, clickhouse, totals
from consumers.archive import Archive
from consumers.archive_cli import reconcile_command, replay_command
from consumers.attribution import Attribution
from consumers.clickhouse import ClickHouse
from consumers.loop import Loop
from consumers.progress import FAMILIES, Progress
from consumers.settings import ConsumersSettings
from consumers.sink import Sink, SinkAwayError
from consumers.totals import Totals
from kafkastore.connection import PublishError, connection
from kafkastore.settings import KafkastoreSettings
from kafkastore.topics import topics_of
from links.database import LinkStoreError
from process import watch
from process.logs import log
from process.metrics import exposition
from process.ports import listen, open_door
from process.readiness import Readiness
from process.run import FAILED, CannotStartError, run, settings_or_exit, stop_on_signals

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reads the topics: totals in SQL, clicks in ClickHouse, all of it in an archive, attribution of installs.",
)


app.command("reconcile")(reconcile_command)
app.command("replay")(replay_command)


class Consumer(StrEnum):
    """What can be run."""

    TOTALS = totals.NAME
    CLICKHOUSE = clickhouse.NAME
    ATTRIBUTION = attribution.NAME
    ARCHIVE = archive.NAME


@app.callback()
def consumers() -> None:
    """Keep `run` a word of its own: a command that stands alone would lose its name."""


@app.command("run")
def run_command(
    name: Annotated[
        Consumer, typer.Argument(metavar="NAME", help="totals, clickhouse, archive or attribution.")
    ],
    *,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End when everything is read; 1 if a partition stopped.")
    ] = False,
    skip_lost: Annotated[
        bool,
        typer.Option(
            "--skip-lost",
            help="Where the next record is not in Kafka any more, go on at the oldest there is.",
        ),
    ] = False,
) -> None:
    """Run a consumer until told to stop."""
    kafka, settings = settings_or_exit(KafkastoreSettings), settings_or_exit(ConsumersSettings)
    run(partial(_run, name, kafka, settings, until_end=until_end, skip_lost=skip_lost))


async def _run(
    name: Consumer,
    kafka: KafkastoreSettings,
    settings: ConsumersSettings,
    *,
    until_end: bool,
    skip_lost: bool,
) -> int:
    stop = stop_on_signals()
    progress = Progress(name, kafka.kafka_prefix)
    try:
        connection(kafka)
    except PublishError as error:
        raise CannotStartError(str(error)) from None
    all_told = True
    async with _sink(name, kafka, settings, progress) as sink, _watched(settings, progress):
        log.info("consumer_started", consumer=name, kafka=kafka.kafka_url, topics=list(sink.topics))
        await Loop(kafka, sink, progress, skip_lost=skip_lost, until_end=until_end).run(stop)
        if until_end and isinstance(sink, Attribution) and not stop.is_set():
            all_told = await sink.drain()
    log.info(
        "consumer_stopped", consumer=name, records=dict(progress.records), dead_letters=dict(progress.dead)
    )
    return FAILED if until_end and (progress.stopped or not all_told) else 0


@asynccontextmanager
async def _sink(
    name: Consumer, kafka: KafkastoreSettings, settings: ConsumersSettings, progress: Progress
) -> AsyncIterator[Sink]:
    sink: Totals | ClickHouse | Attribution | Archive
    match name:
        case Consumer.TOTALS:
            try:
                sink = Totals(
                    settings.database_url.get_secret_value(), visitor_days=settings.totals_visitor_days
                )
            except LinkStoreError as error:
                raise CannotStartError(f"{error}.") from None
        case Consumer.CLICKHOUSE:
            if settings.clickhouse_url is None:
                raise CannotStartError("Nobody says where ClickHouse is: set CLICKHOUSE_URL.")
            sink = ClickHouse(settings.clickhouse_url)
        case Consumer.ATTRIBUTION:
            try:
                sink = Attribution(
                    settings.database_url.get_secret_value(),
                    kafka,
                    progress,
                    wait_seconds=settings.attribution_wait_seconds,
                )
            except LinkStoreError as error:
                raise CannotStartError(f"{error}.") from None
        case Consumer.ARCHIVE:
            try:
                sink = Archive(
                    settings.archive_url,
                    topics_of(kafka),
                    seconds=settings.archive_seconds,
                    file_bytes=settings.archive_bytes,
                )
            except SinkAwayError as error:
                raise CannotStartError(f"{error}.") from None
    try:
        yield sink
    finally:
        await sink.close()


@asynccontextmanager
async def _watched(settings: ConsumersSettings, progress: Progress) -> AsyncIterator[None]:
    """Answer METRICS_PORT, where there is one."""
    if settings.metrics_port is None:
        yield
        return

    async def readiness() -> Readiness:
        return progress.readiness()

    watched = watch.Watched(lambda: exposition(FAMILIES, progress.samples()), readiness)
    listener = listen(settings.host, settings.metrics_port, "METRICS_PORT")
    door = await open_door(listener, partial(watch.answer, watched))
    try:
        yield
    finally:
        await door.close()


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
