"""The `kafkastore` command."""

import asyncio
import json
from functools import partial
from typing import Annotated

import typer
from redis.exceptions import RedisError

from collector.queue import open_redis, queue_keys
from geoip.database import DatabaseError, open_database
from kafkastore.device import warm
from kafkastore.pipeline import Pipeline
from kafkastore.publisher import PublishError
from kafkastore.queue import Queue
from kafkastore.settings import KafkastoreSettings
from kafkastore.tail import readable, tail
from kafkastore.topics import ensure_topics
from process.logs import log
from process.run import FAILED, CannotStartError, run, settings_or_exit, stop_on_signals

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Moves events from Redis to Kafka, enriched.",
)


@app.command("run")
def run_command(
    *,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when the queues are empty.")
    ] = False,
) -> None:
    """Move events until told to stop."""
    settings = settings_or_exit(KafkastoreSettings)
    run(partial(_run, settings, until_empty=until_empty))


async def _run(settings: KafkastoreSettings, *, until_empty: bool) -> int:
    stop = stop_on_signals()
    try:
        places = open_database(settings.geoip_db)
    except DatabaseError as error:
        raise CannotStartError(str(error)) from None
    warm()
    redises = [open_redis(url, tls_insecure=settings.redis_tls_insecure) for url in settings.redis_urls]
    queues = [Queue(redis, keys) for redis in redises for keys in queue_keys(settings.queues)]
    pipeline = Pipeline(settings, places.place_of, until_empty=until_empty)
    log.info("kafkastore_started", kafka=settings.kafka_url, delivery=settings.delivery, queues=len(queues))
    try:
        await pipeline.run(queues, stop)
    finally:
        for redis in redises:
            await redis.aclose()
        log.info("kafkastore_stopped", published=dict(pipeline.published), dropped_bots=pipeline.dropped_bots)
    return 0


@app.command("check")
def check_command() -> None:
    """Tell whether everything the kafkastore needs is there and right: one line a finding, with the cure."""
    settings = settings_or_exit(KafkastoreSettings)
    findings = asyncio.run(_findings(settings))
    for finding in findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(FAILED)
    typer.echo("everything the kafkastore needs is there")


async def _findings(settings: KafkastoreSettings) -> list[str]:
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
        await ensure_topics(settings)
    except PublishError as error:
        findings.append(f"Kafka: {error}. Start it, or mend KAFKA_URL.")
    try:
        open_database(settings.geoip_db)
    except DatabaseError as error:
        findings.append(str(error))
    return findings


@app.command("tail")
def tail_command(
    topics: Annotated[
        list[str] | None, typer.Argument(help="Topics without the prefix; none: all of ours.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest event.")
    ] = False,
) -> None:
    """Follow topics in the terminal."""
    settings = settings_or_exit(KafkastoreSettings)

    async def follow() -> int:
        stop = stop_on_signals()
        async for record in tail(settings, topics or None, stop, from_beginning=from_beginning):
            typer.echo(json.dumps(record.value, ensure_ascii=False) if as_json else readable(record))
        return 0

    run(follow)


def main() -> None:
    """Run the command."""
    app()
