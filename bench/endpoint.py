"""A click on `collector serve` beside a bare aiohttp handler, one core each, in turns: `make bench`.

The bare handler answers every request with one constant redirect: what aiohttp itself costs. The collector has
100,000 links, meets 30,000 different user agents, and ships every click to a real Redis. Server on one core, wrk and
Redis on another. Compare rows of one run with each other: machines differ and are shared.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from embedded.ports import free_port
from embedded.redis import running_redis
from embedded.server import Child, Program

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS", "4"))
LINKS = 100_000
AGENTS = 30_000
CONNECTIONS = 32
SERVER_CORE, CLIENT_CORE = "0", "1"
SCRIPTS = Path(sys.executable).parent

BARE = """
import sys
import uvloop
from aiohttp import web

async def redirect(request):
    return web.Response(status=307, headers={"Location": "https://apps.example/i", "Cache-Control": "no-store"})

app = web.Application()
app.router.add_get("/click/{id}/go", redirect)
uvloop.install()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""

# wrk asks for another link by another agent each time.
REQUESTS = """
local agents = {{}}
for line in io.lines("{agents}") do agents[#agents + 1] = line end
local n = 0
request = function()
  n = n + 1
  local headers = {{["User-Agent"] = agents[n * 7919 % #agents + 1], ["X-Forwarded-For"] = "203.0.113." .. n % 250}}
  return wrk.format("GET", "/click/" .. n * 104729 % {links} + 1 .. "/go?click=c" .. n, headers)
end
"""


def agents():
    """Give as many different agents as there are: phones and desktops whose versions and models differ."""
    for number in range(AGENTS):
        major, minor = 10 + number % 9, number // 9 % 10
        model = number // 90
        yield (
            f"Mozilla/5.0 (Linux; Android {major}; SM-A{model}B) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"Chrome/12{minor}.0.{model}.{number % 200} Mobile Safari/537.36"
            if number % 2
            else f"Mozilla/5.0 (iPhone; CPU iPhone OS {major}_{minor} like Mac OS X) AppleWebKit/605.1.15 "
            f"(KHTML, like Gecko) Version/{major}.{minor} Mobile/15E{model} Safari/604.1"
        )


def links():
    for number in range(1, LINKS + 1):
        yield json.dumps(
            {
                "id": number,
                "slug": f"link-{number}",
                "campaign": f"Campaign {number % 500}",
                "network": "7games",
                "user_id": number % 900,
                "attribution_window_idfa": 70,
                "attribution_window_fingerprint": 60,
                "target_url": {
                    "ios": f"https://apps.apple.com/app/id{number}",
                    "android": f"market://details?id=com.example.game{number}&referrer=utm_source%3Dg",
                    "default": f"https://www.example.com/landing/{number}",
                },
            }
        )


def answers(port, path):
    def ask():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    return ask


def child(directory, name, port, argv, answer_path, **environ):
    program = Program(
        name=name,
        directory=directory,
        argv=("taskset", "--cpu-list", SERVER_CORE, *argv),
        ports=(port,),
        answers=answers(port, answer_path),
        environment={variable: str(value) for variable, value in environ.items()},
        start_seconds=60,
    )
    return Child(program)


def requests_per_second(port, script, seconds):
    said = subprocess.run(
        [
            *("taskset", "--cpu-list", CLIENT_CORE),
            *("wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s", "--latency"),
            *(f"--script={script}", f"http://127.0.0.1:{port}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Non-2xx or 3xx" not in said, said  # noqa: S101
    return float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1]), re.search(r"99%\s*(\S+)", said)[1]


def main():
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(
                f"`{tool}` is missing: install it (Debian: apt-get install wrk util-linux) and run this again."
            )
    redis_binary = shutil.which("redis-server")
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as name:
        directory = Path(name)
        (directory / "agents.txt").write_text("\n".join(agents()))
        (directory / "links.jsonl").write_text("\n".join(links()))
        script = directory / "requests.lua"
        script.write_text(REQUESTS.format(agents=directory / "agents.txt", links=LINKS))
        with running_redis(directory / "redis", binary=redis_binary and Path(redis_binary)) as redis:
            subprocess.run(["taskset", "-cp", CLIENT_CORE, str(redis.pid)], check=True, capture_output=True)
            environ = {
                "PORT": free_port(),
                "HOST": "127.0.0.1",
                "REDIS_URL": redis.url,
                "DATABASE_URL": f"sqlite:///{directory}/onward.db",
                "JOURNAL_DIR": directory / "journal",
                "TRUSTED_PROXIES": "127.0.0.0/8",
            }
            subprocess.run(
                [SCRIPTS / "collector", "links", "import", directory / "links.jsonl"],
                env={variable: str(value) for variable, value in environ.items()},
                check=True,
                capture_output=True,
            )
            bare_port = free_port()
            bare = child(
                directory / "bare", "bare", bare_port, [sys.executable, "-c", BARE, str(bare_port)], "/"
            )
            collector = child(
                directory / "collector",
                "collector",
                environ["PORT"],
                [str(SCRIPTS / "collector"), "serve"],
                "/healthz",
                **environ,
            )
            bare.start()
            collector.start()
            try:
                servers = {
                    "bare aiohttp handler": (bare, bare_port),
                    "collector, a full click": (collector, environ["PORT"]),
                }
                measure(servers, script)
            finally:
                collector.stop()
                bare.stop()


def cpu_seconds(pid):
    """Give the processor's time that a process has had: on a shared machine it says more than requests a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(servers, script):
    figures = {row: [] for row in servers}
    for _, port in servers.values():
        requests_per_second(port, script, 2)  # warm
    for _ in range(ROUNDS):
        for row, (server, port) in servers.items():
            before = cpu_seconds(server.pid)
            rate, p99 = requests_per_second(port, script, SECONDS)
            cpu = (cpu_seconds(server.pid) - before) / (rate * SECONDS)
            figures[row].append((rate, cpu, p99))
    print(f"{'':<26}{'requests/s':>12}{'spread':>20}{'µs each':>10}{'CPU µs':>10}{'p99':>10}")
    for row, found in figures.items():
        rates, cpus, p99s = zip(*found, strict=True)
        rate = statistics.median(rates)
        spread = f"{min(rates):,.0f} – {max(rates):,.0f}"
        cpu = f"{statistics.median(cpus) * 1e6:.1f}"
        print(f"{row:<26}{rate:>12,.0f}{spread:>20}{1e6 / rate:>10.1f}{cpu:>10}{p99s[-1]:>10}")
    bare, full = figures.values()
    costs = sorted(one[0] / other[0] for one, other in zip(bare, full, strict=True))
    in_cpu = statistics.median(other[1] / one[1] for one, other in zip(bare, full, strict=True))
    print(
        f"a full click costs {statistics.median(costs):.2f} × a bare handler ({costs[0]:.2f} – {costs[-1]:.2f}); "
        f"of the processor's time {in_cpu:.2f} ×"
    )


if __name__ == "__main__":
    main()
