"""The `kafkastore` command."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated

import typer

from collector.queue import open_redis, queue_keys
from geoip.database import DatabaseError, open_database
from geoip.fresh import keep_fresh
from kafkastore.connection import PublishError, connection
from kafkastore.dead_cli import dead_app
from kafkastore.device import warm
from kafkastore.findings import findings
from kafkastore.health import readiness
from kafkastore.metrics import FAMILIES, samples_of
from kafkastore.pipeline import Pipeline, Resolve
from kafkastore.queue import Queue
from kafkastore.settings import KafkastoreSettings
from kafkastore.stored import Wanted, as_json, readable
from kafkastore.tail import tail
from kafkastore.visitor_keys import DailyKeys
from process import watch
from process.finding import report
from process.logs import log
from process.metrics import exposition
from process.ports import listen, open_door
from process.run import CannotStartError, run, settings_or_exit, stop_on_signals
from process.tasks import end

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Moves events from Redis to Kafka, enriched.",
)
app.add_typer(dead_app, name="dead")


@app.command("run")
def run_command(
    *,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when the queues are empty.")
    ] = False,
    resolve: Annotated[
        Resolve | None,
        typer.Option(
            "--resolve",
            help="What to do with a batch that was on its way to another Kafka: publish it here, though it may be "
            "there too, or forget it.",
        ),
    ] = None,
) -> None:
    """Move events until told to stop."""
    settings = settings_or_exit(KafkastoreSettings)
    run(partial(_run, settings, until_empty=until_empty, resolve=resolve))


async def _run(settings: KafkastoreSettings, *, until_empty: bool, resolve: Resolve | None) -> int:
    stop = stop_on_signals()
    try:
        places = open_database(settings.geoip_db)
        connection(settings)
    except (DatabaseError, PublishError) as error:
        raise CannotStartError(str(error)) from None
    warm()
    async with AsyncExitStack() as stack:
        redises = [open_redis(url, tls_insecure=settings.redis_tls_insecure) for url in settings.redis_urls]
        for redis in redises:
            stack.push_async_callback(redis.aclose)
        queues = [Queue(redis, keys) for redis in redises for keys in queue_keys(settings.queues)]
        pipeline = Pipeline(settings, places.place_of, until_empty=until_empty, resolve=resolve)
        if settings.visitor_keys_change_daily:
            pipeline.daily_keys = DailyKeys(redises[0])
        if settings.metrics_port is not None:
            listener = listen(settings.host, settings.metrics_port, "METRICS_PORT")
            watched = watch.Watched(
                metrics=lambda: exposition(FAMILIES, samples_of(pipeline, places)),
                readiness=partial(readiness, settings, pipeline, redises, stop),
            )
            door = await open_door(listener, partial(watch.answer, watched))
            stack.push_async_callback(door.close)
        fresh = asyncio.create_task(keep_fresh(places))
        stack.push_async_callback(end, {fresh})
        log.info(
            "kafkastore_started", kafka=settings.kafka_url, delivery=settings.delivery, queues=len(queues)
        )
        try:
            await pipeline.run(queues, stop)
        finally:
            log.info(
                "kafkastore_stopped",
                published=dict(pipeline.published),
                dropped_bots=pipeline.dropped_bots,
                redis_went_back=pipeline.redis_went_back,
            )
    return 0


@app.command("check")
def check_command() -> None:
    """Tell whether everything the kafkastore needs is there and right: one line a finding, with the cure."""
    settings = settings_or_exit(KafkastoreSettings)
    report(asyncio.run(findings(settings)), "everything the kafkastore needs is there")


@app.command("tail")
def tail_command(
    topics: Annotated[
        list[str] | None, typer.Argument(help="Topics without the prefix; none: all of ours.")
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest event.")
    ] = False,
    link: Annotated[
        list[str] | None, typer.Option("--link", help="Only this link, by number or slug; may be repeated.")
    ] = None,
    platform: Annotated[
        list[str] | None,
        typer.Option("--platform", help="Only this platform: ios, android, …; may be repeated."),
    ] = None,
    country: Annotated[
        list[str] | None, typer.Option("--country", help="Only this country: DE, …; may be repeated.")
    ] = None,
    bots: Annotated[
        bool | None, typer.Option("--bots/--people", help="Bots only, or people only.", show_default=False)
    ] = None,
) -> None:
    """Follow topics in the terminal."""
    settings = settings_or_exit(KafkastoreSettings)
    wanted = Wanted(
        links=frozenset(link or ()),
        platforms=frozenset(name.lower() for name in platform or ()),
        countries=frozenset(code.upper() for code in country or ()),
        bots=bots,
    )

    async def follow() -> int:
        stop = stop_on_signals()
        async for record in tail(settings, topics or None, stop, from_beginning=from_beginning):
            if wanted.fits(record):
                typer.echo(as_json(record) if json else readable(record))
        return 0

    run(follow)


def main() -> None:
    """Run the command."""
    app()
