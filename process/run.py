"""How a process of ours begins and ends: settings, logs, one event loop, SIGTERM, an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use (a variable or an argument that does not parse).
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Final, NoReturn

import uvloop

from process.logs import configure_logs
from process.settings import AnySettings, Settings, SettingsError, read_settings

FAILED = 1
WRONG_USE = 2

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class CannotStartError(Exception):
    """Something this process needs is not there; the text is one sentence with the cure."""


def settings_or_exit(model: type[AnySettings]) -> AnySettings:
    """Read the settings and set up the logs, or say what is wrong and exit with 2."""
    try:
        settings = read_settings(model, os.environ)
    except SettingsError as error:
        give_up(str(error), WRONG_USE)
    configure_logs(settings.log_level if isinstance(settings, Settings) else "info")
    return settings


def run(main: Callable[[], Coroutine[object, object, int]]) -> NoReturn:
    """Run `main` on uvloop and exit with what it returns; CannotStartError is one sentence and 1."""
    # What was imported stays: to find that out, the garbage collector would stop us for 60 ms now and then.
    gc.freeze()
    try:
        code = uvloop.run(main())
    except CannotStartError as error:
        give_up(str(error), FAILED)
    except KeyboardInterrupt:
        code = 130  # as a shell reports a command that Ctrl-C ended
    leave(code)


def leave(code: int) -> NoReturn:
    """Exit, deaf to whoever tells us again: Python gives signals their defaults back before it is gone."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def give_up(sentence: str, code: int) -> NoReturn:
    """Say one sentence on stderr and exit."""
    print(sentence, file=sys.stderr)  # noqa: T201 (before, or instead of, the log)
    sys.exit(code)


def stop_on_signals() -> asyncio.Event:
    """Give an event that is set by SIGTERM or SIGINT.

    Not by the loop's own handlers: uvloop takes them down as it closes, and a signal then would kill us.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(_number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    for number in STOP_SIGNALS:
        signal.signal(number, tell)
    return stop
