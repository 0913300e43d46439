"""What benchmarks stand on: two cores, servers on one, the load and all that is not measured on the other.

What counts is the processor's time that a server takes for one request: on a machine that is shared, requests a
second say as much of the neighbours. Rows are measured in turns (A-B-A-B), and compared with others of one run only.
"""

import os
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from redis import Redis

from embedded import apache_kafka
from embedded.kafka import KafkaServer
from embedded.redis import RedisServer, running_redis
from embedded.server import Child, Program, tail

SERVER_CORE, CLIENT_CORE = 0, 1
SCRIPTS = Path(sys.executable).parent
LOOK_SECONDS = 0.003
MOVE_SECONDS = 120


def need(**packages: str) -> None:
    """End with the cure if a tool is missing: each is named with the Debian package that has it."""
    missing = {tool: package for tool, package in packages.items() if shutil.which(tool) is None}
    if missing:
        sys.exit(
            f"Missing: {', '.join(missing)}. Install them (Debian: apt-get install {' '.join(missing.values())}) "
            "and run this again."
        )


def redis(stack: ExitStack, directory: Path) -> RedisServer:
    """Run a real Redis on the other core, with a log as production's."""
    binary = shutil.which("redis-server")
    server = stack.enter_context(running_redis(directory, binary=binary and Path(binary)))
    os.sched_setaffinity(server.pid, {CLIENT_CORE})
    return server


@contextmanager
def lasting_kafka(directory: Path) -> Iterator[KafkaServer]:
    """Run Apache Kafka compiled as a broker that stays; those of the tests save themselves the trouble."""
    of_tests, apache_kafka.JVM = apache_kafka.JVM, ("-XX:+UseSerialGC", "-Xms32m")
    try:
        with apache_kafka.running_apache_kafka(directory) as server:
            yield server
    finally:
        apache_kafka.JVM = of_tests


def server(
    directory: Path,
    port: int,
    argv: Sequence[str],
    environ: Mapping[str, object] | None = None,
    *,
    path: str = "/",
    tls: bool = False,
    core: object = SERVER_CORE,
) -> Child:
    """Give a server that is there when it answers `path`, whatever it answers; `core` may name several."""
    return _pinned(
        directory, argv, environ, core, ports=(port,), answers=lambda _: _answers(port, path, tls=tls)
    )


def worker(
    directory: Path, argv: Sequence[str], environ: Mapping[str, object], core: object = SERVER_CORE
) -> Child:
    """Give a `kafkastore run`: it is there when it owns a queue."""
    return _pinned(
        directory, argv, environ, core, ports=(), answers=lambda log: b'"queue_owned"' in log.read_bytes()
    )


def serve(stack: ExitStack, *arguments, **more) -> Child:
    """Run a server until the stack ends."""
    return run(stack, server(*arguments, **more))


def run(stack: ExitStack, child: Child) -> Child:
    """Run something until the stack ends."""
    child.start()
    stack.callback(child.stop)
    return child


@dataclass(frozen=True, slots=True)
class Start:
    """What it took from the command to the first answer."""

    ms: float
    cpu_ms: float


def started(child: Child) -> Start:
    """Start something, looking more often than one usually would."""
    began = time.perf_counter()
    child.launch()
    while not child.program.answers():
        if not child.pid or time.perf_counter() - began > child.program.start_seconds:
            sys.exit(f"It does not start.\n{tail(child.program.log)}")
        time.sleep(LOOK_SECONDS)
    return Start((time.perf_counter() - began) * 1000, cpu_seconds(child.pid) * 1000)


def cpu_us(step: Callable[[Any], object], cases: Sequence[Any]) -> float:
    """Give the microseconds of this process's processor that a step takes for a case."""
    began = time.process_time()
    for case in cases:
        step(case)
    return (time.process_time() - began) / len(cases) * 1e6


def cpu_seconds(pid: int) -> float:
    """Give what a process and its children have had of the processor (proc(5): fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in _children(pid))


def resident_mb(pid: int) -> float:
    """Give the resident memory of a process and its children, in MB of 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    own = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return own + sum(resident_mb(child) for child in _children(pid))


def redis_seconds(server: RedisServer) -> float:
    """Give what a Redis has had of the processor."""
    with Redis.from_url(server.url) as client:
        used = client.info("cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]


def empty(server: RedisServer) -> None:
    """Take what was shipped away: a bench is not about what a full Redis costs."""
    with Redis.from_url(server.url) as client:
        client.unlink("click_queue")


def await_empty(server: RedisServer) -> None:
    """Return when all that was shipped is moved."""
    deadline = time.monotonic() + MOVE_SECONDS
    with Redis.from_url(server.url) as client:
        while client.exists("click_queue"):
            if time.monotonic() > deadline:
                sys.exit(f"The queue was not moved within {MOVE_SECONDS} s.")
            time.sleep(0.05)


def trusting_anybody() -> ssl.SSLContext:
    """Give a client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _pinned(directory, argv, environ, core, *, ports, answers) -> Child:
    log = directory / f"{directory.name}.log"
    return Child(
        Program(
            name=directory.name,
            directory=directory,
            argv=("taskset", "--cpu-list", str(core), *map(str, argv)),
            ports=ports,
            answers=lambda: answers(log),
            environment={name: str(value) for name, value in (environ or {}).items()},
            start_seconds=120,
        )
    )


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text("ascii").split())
    return found


def _answers(port: int, path: str, *, tls: bool) -> bool:
    connection = (
        HTTPSConnection("127.0.0.1", port, timeout=1, context=trusting_anybody())
        if tls
        else HTTPConnection("127.0.0.1", port, timeout=1)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()
