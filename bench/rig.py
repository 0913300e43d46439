"""What benchmarks stand on: two cores, servers on one, the load and all that is not measured on the other.

What counts is the processor's time that a server takes for one request: on a machine that is shared, requests a
second say as much of the neighbours. Rows are measured in turns (A-B-A-B), and compared with others of one run only.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from redis import Redis

from embedded import apache_kafka
from embedded.kafka import KafkaServer
from embedded.redis import RedisServer, running_redis
from embedded.server import Child, Program

SERVER_CORE, CLIENT_CORE = 0, 1
SCRIPTS = Path(sys.executable).parent
CONNECTIONS = 32
WARM_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load."""

    rate: float
    """Requests a second."""
    cpu_us: float
    """Microseconds of the processor for each."""
    p50_ms: float
    p99_ms: float


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


def serve(
    stack: ExitStack,
    directory: Path,
    port: int,
    argv: Sequence[str],
    environ: Mapping[str, object] | None = None,
    *,
    path: str = "/",
    core: int = SERVER_CORE,
) -> Child:
    """Run a server until the stack ends; it is there when it answers `path`, whatever it answers."""
    program = Program(
        name=directory.name,
        directory=directory,
        argv=("taskset", "--cpu-list", str(core), *argv),
        ports=(port,),
        answers=lambda: _answers(port, path),
        environment={name: str(value) for name, value in (environ or {}).items()},
        start_seconds=60,
    )
    child = Child(program)
    child.start()
    stack.callback(child.stop)
    return child


def load(server: Child, script: Path, seconds: float, *, connections: int = CONNECTIONS) -> Load:
    """Have wrk ask a server for a while, by a script of its own."""
    before = cpu_seconds(server.pid)
    said = subprocess.run(
        [
            *(
                "taskset",
                "--cpu-list",
                str(CLIENT_CORE),
                "wrk",
                "--threads=1",
                f"--connections={connections}",
            ),
            *(f"--duration={seconds:g}s", "--latency", f"--script={script}"),
            f"http://127.0.0.1:{server.program.ports[0]}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cpu = cpu_seconds(server.pid) - before
    assert "Non-2xx or 3xx" not in said, said  # noqa: S101
    requests = int(re.search(r"(\d+) requests in", said)[1])
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])
    return Load(rate, cpu / requests * 1e6, _latency_ms(said, 50), _latency_ms(said, 99))


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


def empty(server: RedisServer) -> None:
    """Take what was shipped away: a bench is not about what a full Redis costs."""
    with Redis.from_url(server.url) as client:
        client.delete("click_queue")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text("ascii").split())
    return found


def _latency_ms(said: str, percent: int) -> float:
    number, unit = re.search(rf"{percent}%\s*([\d.]+)(us|ms|s)", said).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()
