"""Our own commands as processes, started and stopped as a platform would."""

import contextlib
import sys
import urllib.error
import urllib.request
from pathlib import Path

from embedded.server import Child, Program

SCRIPTS = Path(sys.executable).parent


@contextlib.contextmanager
def running(directory, *command, answers, **environ):
    """Run a console script until the block ends; yields the Child, whose log says what it said."""
    name = command[0]
    program = Program(
        name=name,
        directory=directory / name,
        argv=(str(SCRIPTS / name), *command[1:]),
        ports=(),
        answers=lambda: answers(child),
        environment={variable: str(value) for variable, value in environ.items()},
    )
    child = Child(program)
    child.start()
    try:
        yield child
    finally:
        child.stop()


def healthy(port):
    """Tell whether a collector answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def has_said(event):
    """Tell whether a process has logged an event."""
    return lambda child: f'"{event}"' in child.program.log.read_text("utf-8")
