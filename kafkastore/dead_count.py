"""What lies dead, counted; and how far a redrive by reason can go."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from kafkastore.dead_letters import Letter

_MOST_REASONS: Final = 100
"""Ours are a dozen; whoever else writes to these topics cannot make the count grow."""

OTHER_REASONS: Final = "other reasons"


@dataclass(slots=True)
class Count:
    """How many, and from when to when they died, as far as that is known."""

    letters: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None

    def add(self, letter: Letter) -> None:
        """Count a letter."""
        self.letters += 1
        if letter.at_ms is not None:
            self.oldest_ms = min(self.oldest_ms or letter.at_ms, letter.at_ms)
            self.newest_ms = max(self.newest_ms or letter.at_ms, letter.at_ms)


@dataclass(slots=True)
class Tally:
    """The dead letters of one topic, all together and by reason."""

    total: Count = field(default_factory=Count)
    reasons: dict[str, Count] = field(default_factory=dict)

    def add(self, letter: Letter) -> None:
        """Count a letter."""
        known = letter.reason in self.reasons or len(self.reasons) < _MOST_REASONS
        self.total.add(letter)
        self.reasons.setdefault(letter.reason if known else OTHER_REASONS, Count()).add(letter)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a redrive goes in one pile. A mark has no holes: only what lies in front can be taken."""

    letters: int
    """That can be redriven: all up to the first one with another reason."""
    behind: int
    """That have the reason, and lie behind letters that have another."""


async def reach_of(letters: AsyncIterator[Letter], reason: str | None) -> Reach:
    """Count the letters that a redrive takes, of all reasons (None) or one."""
    front = behind = 0
    others = False
    async for letter in letters:
        if reason is not None and letter.reason != reason:
            others = True
        elif others:
            behind += 1
        else:
            front += 1
    return Reach(front, behind)
