"""`make run`: the whole pipeline on this machine, with servers from wheels and made-up visitors.

Starts what the environment does not name (Redis, Kafka), then the same console scripts as the Procfile, prints
each event that a reader of the topics sees, and closes the books at the end.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from embedded.books import Books
from embedded.kafka import running_kafka
from embedded.ports import is_free
from embedded.real_kafka import running_real_kafka
from embedded.redis import running_redis
from embedded.server import Child, Program, ServerUnavailable, last_will
from embedded.traffic import VISITS_PER_SECOND, visit_for_ever
from process.run import FAILED, WRONG_USE, give_up, run, stop_on_signals

SCRIPTS: Final = Path(sys.executable).parent
LINKS: Final = Path(__file__).with_name("links.jsonl")
VAR: Final = Path("var").absolute()

DRAIN_SECONDS: Final = 3.0
"""For the last clicks to reach Kafka, when told to stop; each process then has less than its 10 s to go."""

READ_SECONDS: Final = 2.0
"""For the reader to see the last of them."""

_POLL_SECONDS: Final = 0.05
_LAST_PORT: Final = 65535
_READER_SECONDS: Final = 3

Environment = dict[str, str]


def main() -> None:
    """Run until Ctrl-C; exit 1 with one sentence if something is missing."""
    try:
        run(_run)
    except ServerUnavailable as error:
        give_up(str(error), FAILED)


async def _run() -> int:
    stop = stop_on_signals()
    environ = _environment()
    port = int(environ["PORT"])
    if not is_free(port):
        raise ServerUnavailable(
            f"Port {port} is in use: stop the program that listens there, or choose another one (PORT=8081 make run)."
        )
    with contextlib.ExitStack() as stack:
        _run_redis(stack, environ)
        in_memory = _run_kafka(stack, environ)
        books = Books(carried_over=await _queued(environ))
        collector = _child("collector", "serve", environ, lambda _child: _healthy(port))
        kafkastore = _child("kafkastore", "run", environ, lambda child: _has_said(child, "queue_owned"))
        collector.launch()
        stack.callback(collector.stop)
        async with _stored_lines(environ, from_beginning=in_memory) as lines:
            kafkastore.launch()
            stack.callback(kafkastore.stop)
            _finish(environ, "collector", "links", "import", str(LINKS))  # while both are starting
            collector.await_answer()
            kafkastore.await_answer()
            print(_start_up_block(environ, in_memory=in_memory), flush=True)
            printing = asyncio.create_task(_print_and_count(lines, books.stored))
            await _let_visitors_come(stop, environ, (collector, kafkastore))

            print("stopping …", flush=True)
            await asyncio.to_thread(collector.stop)
            await _drain(environ)
            await asyncio.to_thread(kafkastore.stop)
            moved = _last_words(kafkastore, "kafkastore_stopped")
            await _await_reader(books.stored, sum(moved.get("published", {}).values()))
        await printing
        books.close(_last_words(collector, "collector_stopped"), moved, queued=await _queued(environ))
    print(books.sentence(), flush=True)
    return 0 if books.lost == 0 else FAILED


def _environment() -> Environment:
    """Give the processes' variables: the operator's, over defaults that suit one machine."""
    ours = {
        "PORT": "8080",
        "DATABASE_URL": f"sqlite:///{VAR / 'onward.db'}",
        "JOURNAL_DIR": str(VAR / "journal"),
        "TRUSTED_PROXIES": "127.0.0.0/8",  # the made-up visitors say where they come from
    }
    # Its own eyes: what it waits for is said at this level, on this address, through this one queue.
    fixed = {"LOG_LEVEL": "info", "HOST": "127.0.0.1", "QUEUES": "1", "WEB_CONCURRENCY": "1"}
    others = ("REDIS_TLS_URL", "REDIS_URL_CLICKSTORE", "TLS_", "HTTP_PORT")
    theirs = {name: value for name, value in os.environ.items() if value and not name.startswith(others)}
    environ = {**ours, **theirs, **fixed}
    if not (environ["PORT"].isdecimal() and 0 < int(environ["PORT"]) <= _LAST_PORT):
        give_up(
            f"PORT does not parse ({environ['PORT']!r}); wanted: a TCP port, 1 to {_LAST_PORT}.", WRONG_USE
        )
    return environ


def _run_redis(stack: contextlib.ExitStack, environ: Environment) -> None:
    if "REDIS_URL" not in environ:
        environ["REDIS_URL"] = stack.enter_context(running_redis(VAR / "redis")).url


def _run_kafka(stack: contextlib.ExitStack, environ: Environment) -> bool:
    """Run a Kafka if none is named; True if it is the one that holds nothing from before."""
    if "KAFKA_URL" in environ:
        return False
    if environ.get("EMBEDDED_KAFKA") == "apache":
        environ["KAFKA_URL"] = stack.enter_context(running_real_kafka(VAR / "kafka")).url
        return False
    environ["KAFKA_URL"] = stack.enter_context(running_kafka(VAR / "kafka-in-memory")).url
    environ["DELIVERY"] = "at_least_once"  # this broker knows no transactions
    return True


def _child(name: str, command: str, environ: Environment, answers: Callable[[Child], bool]) -> Child:
    """Prepare one of our console scripts; what it prints goes to var/<name>/<name>.log."""
    child: Child
    program = Program(
        name=name,
        directory=VAR / name,
        argv=(str(SCRIPTS / name), command),
        ports=(),
        answers=lambda: answers(child),
        environment=environ,
    )
    child = Child(program)
    return child


def _finish(environ: Environment, *command: str) -> None:
    """Run one of our console scripts to its end; raises ServerUnavailable with what it said."""
    done = subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C is ours to obey
    )
    if done.returncode:
        raise ServerUnavailable(done.stderr.strip() or done.stdout.strip())


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 (HTTP's OK)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _has_said(child: Child, event: str) -> bool:
    return f'"{event}"' in child.program.log.read_text(encoding="utf-8")


def _last_words(child: Child, event: str) -> dict[str, Any]:
    """Give the last log line of a kind; empty if the process could not say it any more."""
    for line in reversed(child.program.log.read_text(encoding="utf-8").splitlines()):
        if f'"{event}"' in line:
            return dict(json.loads(line))
    return {}


async def _queued(environ: Environment) -> int:
    """Count the events that wait in Redis; raises ServerUnavailable."""
    try:
        async with Redis.from_url(environ["REDIS_URL"]) as redis:
            return sum([int(await redis.llen(key)) for key in ("click_queue", "{click_queue}:inflight")])
    except (RedisError, OSError, ValueError) as error:
        raise ServerUnavailable(f"Redis does not answer ({error}): start it, or mend REDIS_URL.") from None


async def _drain(environ: Environment) -> None:
    """Wait until the queue is empty, but not longer than the stop may take."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while await _queued(environ):
                await asyncio.sleep(_POLL_SECONDS)


async def _await_reader(stored: Counter[str], published: int) -> None:
    """Wait until the reader has seen what was published, but not longer than the stop may take."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_SECONDS):
            while stored.total() < published:
                await asyncio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def _stored_lines(environ: Environment, *, from_beginning: bool) -> AsyncIterator[asyncio.StreamReader]:
    """Follow the topics as any reader may: with `kafkastore tail`, from before the first event of this run."""
    arguments = ["--from-beginning"] if from_beginning else []
    log_file = VAR / "kafkastore" / "tail.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        reader: Process = await asyncio.create_subprocess_exec(
            SCRIPTS / "kafkastore",
            "tail",
            *arguments,
            env=environ,
            stdout=PIPE,
            stderr=log,
            start_new_session=True,
        )
    will = last_will(reader.pid, signal.SIGTERM, _READER_SECONDS)
    if reader.stdout is None:
        raise AssertionError("stdout was asked for")
    try:
        # From then on it misses nothing: of a topic that is still to be made it shows everything.
        begun = (b'"tail_started"', b'"tail_waits_for_topics"')
        while (
            not from_beginning
            and reader.returncode is None
            and not any(event in log_file.read_bytes() for event in begun)
        ):
            await asyncio.sleep(_POLL_SECONDS)
        yield reader.stdout
    finally:
        if reader.returncode is None:
            reader.terminate()
        await reader.wait()
        will.kill()
        await asyncio.to_thread(will.communicate)


async def _print_and_count(lines: asyncio.StreamReader, stored: Counter[str]) -> None:
    async for line in lines:
        print(line.decode().rstrip("\n"), flush=True)
        stored[line.split(b" ")[1].decode()] += 1


async def _let_visitors_come(stop: asyncio.Event, environ: Environment, children: Sequence[Child]) -> None:
    """Send visitors until told to stop, or until a process of ours is gone."""
    visiting: asyncio.Task[None] | None = None
    if environ.get("TRAFFIC") != "0":
        visiting = asyncio.create_task(visit_for_ever(f"http://127.0.0.1:{environ['PORT']}"))
    while not stop.is_set():
        for child in children:
            if not child.pid:
                print(f"{child.program.name} is gone; what it said last: {child.program.log}", flush=True)
                stop.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await stop.wait()
    if visiting is not None:
        visiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await visiting


def _shown(url: str) -> str:
    """Give a URL without the password in it."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:…@", url)


def _start_up_block(environ: Environment, *, in_memory: bool) -> str:
    kafka = (
        "in memory, at least once; EMBEDDED_KAFKA=apache (needs Java and Maven) or KAFKA_URL takes a real one"
        if in_memory
        else f"{environ.get('DELIVERY') or 'exactly_once'}; KAFKA_URL takes another one"
    )
    base = f"http://127.0.0.1:{environ['PORT']}"
    rows = (
        ("collector", base, "PORT takes another one; log in var/collector/"),
        ("Redis", _shown(environ["REDIS_URL"]), "data in var/redis/; REDIS_URL takes a real one"),
        ("kafkastore", "Redis → Kafka", "log in var/kafkastore/"),
        ("Kafka", environ["KAFKA_URL"], kafka),
        (
            "links",
            _shown(environ["DATABASE_URL"].replace(f"{VAR}/", "var/")),
            "four examples; DATABASE_URL takes PostgreSQL",
        ),
        ("visitors", f"{VISITS_PER_SECOND:g} a second, made up", "TRAFFIC=0 sends none"),
    )
    if environ.get("TRAFFIC") == "0":
        rows = (*rows[:-1], ("visitors", "none", "TRAFFIC=1 sends some"))
    width = max(len(where) for _, where, _ in rows)
    table = "\n".join(f"  {what:<11} {where:<{width}}  {hint}" for what, where, hint in rows)
    return (
        f"\nOnward runs; Ctrl-C stops it and closes the books.\n\n{table}\n\n"
        f"  Try it:  curl -i -A 'iPhone' {base}/click/1/go\n\nEvents as a reader of Kafka sees them:"
    )
