"""wrk: what it asks for, as fast as it is answered or with pauses, and what it says.

Every request is for another link, by another agent from another address.
"""

import itertools
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rig import CLIENT_CORE, cpu_seconds
from visitors import AGENTS, agents

from embedded.server import Child

CONNECTIONS = 64
FEW_CONNECTIONS = 16

REQUESTS = """
local agents = {{}}
for line in io.lines("{agents}") do agents[#agents + 1] = line end
local n = 0
request = function()
  n = n + 1
  local headers = {{["User-Agent"] = agents[n * 7919 % #agents + 1], ["X-Forwarded-For"] = "203.0.113." .. n % 250}}
  return wrk.format("GET", "{path}" .. "?click=c" .. n, headers)
end
"""
PAUSED = """
delay = function() return -math.log(1 - math.random()) * {pause_ms} end
"""
PATHS = {
    "id": '/click/" .. n * 104729 % {links} + 1 .. "/go',
    "slug": '/link-" .. n * 104729 % {links} + 1 .. "',
    "unknown": '/click/" .. n + 10000000 .. "/go',
    "lua": '/lua/click/" .. n * 104729 % {links} + 1 .. "/go',
}


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load."""

    rate: float
    """Requests a second."""
    cpu_us: float
    """Microseconds of the processor for each."""
    p50_ms: float
    p99_ms: float


def script(directory: Path, path: str, links: int) -> Path:
    """Write what wrk runs to ask by one of PATHS."""
    listed = directory / "agents.txt"
    if not listed.exists():
        listed.write_text("\n".join(itertools.islice(agents(), AGENTS)))
    found = directory / f"{path}-{links}.lua"
    found.write_text(REQUESTS.format(agents=listed, path=PATHS[path].format(links=links)))
    return found


def paused(asks: Path, name: str, rate: float) -> Path:
    """Write the same with pauses, at random, so that there are so many requests a second."""
    found = asks.with_name(f"{asks.stem}-{name}.lua")
    pause_ms = max(1000 * CONNECTIONS / rate - 1, 0)
    found.write_text(asks.read_text() + PAUSED.format(pause_ms=pause_ms))
    return found


def load(
    child: Child,
    asks: Path,
    seconds: float,
    *,
    connections: int = CONNECTIONS,
    core: object = CLIENT_CORE,
) -> Load:
    """Have wrk ask a server for a while, by a script of its own."""
    before = cpu_seconds(child.pid)
    command = _command(child, asks, seconds, connections, core)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = cpu_seconds(child.pid) - before
    assert "Non-2xx or 3xx" not in said, said  # noqa: S101
    requests = int(re.search(r"(\d+) requests in", said)[1])
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])
    return Load(rate, cpu / requests * 1e6, _latency_ms(said, 50), _latency_ms(said, 99))


@contextmanager
def asking(child: Child, asks: Path) -> Iterator[None]:
    """Have wrk ask a server meanwhile, for ten minutes at most."""
    command = _command(child, asks, 600, CONNECTIONS, CLIENT_CORE)
    wrk = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        wrk.terminate()
        wrk.wait()


def _command(child: Child, asks: Path, seconds: float, connections: int, core: object) -> list[str]:
    return [
        *("taskset", "--cpu-list", str(core), "wrk", "--threads=1", f"--connections={connections}"),
        *(f"--duration={seconds:g}s", "--latency", f"--script={asks}"),
        f"http://127.0.0.1:{child.program.ports[0]}",
    ]


def _latency_ms(said: str, percent: int) -> float:
    number, unit = re.search(rf"{percent}%\s*([\d.]+)(us|ms|s)", said).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
