"""The stop limit: a bad deploy, or a bad producer, must not turn a whole queue into dead letters.

Of the last 1,000 lines only a share may be dead. A batch that would pass the limit is not published: it stays in
flight, and is tried again when whoever runs this has looked.
"""

from collections.abc import Sequence
from typing import Final

WINDOW_LINES: Final = 1_000


class StopLimitError(Exception):
    """Too many lines are dead; the sentence has the cure."""


class StopLimit:
    """Remembers of the last lines which were dead."""

    def __init__(self, percent: int) -> None:
        """Allow so many of 100 lines to be dead; 100: there is no limit."""
        self._most = WINDOW_LINES * percent // 100
        self._last: list[bool] = []

    def check(self, dead: Sequence[bool], why: str) -> None:
        """Raise StopLimitError if the lines of a batch, true for dead ones, would pass the limit; `why` they do."""
        found = sum((*self._last, *dead)[-WINDOW_LINES:])
        if found > self._most:
            raise StopLimitError(
                f"{found} of the last {WINDOW_LINES} lines would be dead letters ({why}): nothing is published "
                "and nothing lost. Mend this deploy or what writes such lines; STOP_LIMIT=100 lets them pass"
            )

    def passed(self, dead: Sequence[bool]) -> None:
        """Remember the lines of a batch that was published."""
        self._last = [*self._last, *dead][-WINDOW_LINES:]
