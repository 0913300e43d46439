"""A circuit breaker: after five failures in a row the other end is left alone, longer each time."""

from typing import Final

FAILURES: Final = 5
"""In a row, before the circuit opens: each is at most a time-out of 1 s."""

SHORTEST_PAUSE_SECONDS: Final = 0.1
"""After a first failure, and doubled up to the fifth: a hiccup is over within a second."""

SHORTEST_OPEN_SECONDS: Final = 2.0
LONGEST_OPEN_SECONDS: Final = 128.0
"""How long an open circuit rests before it is tried again: doubled each time it fails."""


class Breaker:
    """Counts how attempts end. A failed attempt is followed by a pause, then by one attempt more."""

    def __init__(self, longest_open_seconds: float = LONGEST_OPEN_SECONDS) -> None:
        self._longest = longest_open_seconds
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    @property
    def is_open(self) -> bool:
        """Whether others should be tried first."""
        return self._failures >= FAILURES

    def failed(self) -> float:
        """Count a failure; gives the pause before the next attempt, in seconds."""
        self._failures += 1
        if not self.is_open:
            return SHORTEST_PAUSE_SECONDS * 2.0 ** (self._failures - 1)
        return float(min(SHORTEST_OPEN_SECONDS * 2.0 ** (self._failures - FAILURES), self._longest))

    def succeeded(self) -> None:
        """Close the circuit."""
        self._failures = 0
