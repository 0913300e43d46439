"""How dead letters look: to a person on a terminal, where nothing they hold may be obeyed, and as JSON."""

import base64
from collections.abc import Iterable
from typing import Any, Final

from collector.event import utc_time
from kafkastore.dead_count import Count, Tally
from kafkastore.dead_letters import Letter
from kafkastore.dead_piles import DeadPartition, Pile
from process.terminal import show_rows

_MOST_SHOWN: Final = 2_000
"""Bytes of a line that a person is shown: more than a click has. The rest is for --json."""


def note_on(pile: Pile) -> str | None:
    """Say what a person should know before the letters of a partition are redriven or dropped."""
    if not isinstance(pile, DeadPartition):
        return None
    where = f"{pile.topic}, partition {pile.span.partition.partition}"
    last = pile.span.mark.offset if pile.span.mark else -1
    if pile.span.recreated and pile.span.begin < pile.span.end:
        return (
            f"{where}: what was redriven or dropped last (offset {last}) is not there. If the topic was deleted and "
            "made anew, all its letters are new: redrive or drop them with --recreated."
        )
    if pile.span.removed:
        return (
            f"{where}: Kafka's retention has removed offsets {last + 1} to {pile.span.begin - 1}; "
            "any letter among them is gone."
        )
    return None


def tally_record(tally: Tally) -> dict[str, Any]:
    """Give a topic's count for programs."""
    reasons = [{"reason": reason, **_count_record(count)} for reason, count in tally.reasons.items()]
    return {**_count_record(tally.total), "reasons": reasons}


def _count_record(count: Count) -> dict[str, Any]:
    return {
        "letters": count.letters,
        "oldest": when(count.oldest_ms) or None,
        "newest": when(count.newest_ms) or None,
    }


def letter_record(letter: Letter) -> dict[str, Any]:
    """Give a letter for programs: its line as a person may read it, and to the byte."""
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "time": when(letter.at_ms) or None,
        "step": letter.step,
        "reason": letter.reason,
        "line": _printable(letter.line.decode("utf-8", "backslashreplace")),
        "line_base64": base64.b64encode(letter.line).decode(),
    }


def readable(letter: Letter) -> str:
    """Give one line: `clicks.dead/3/17 2026-01-31T12:00:00.000Z decode, unknown topic: b'…'`."""
    rest = len(letter.line) - _MOST_SHOWN
    more = f" … and {rest} bytes more" if rest > 0 else ""
    where = f"{letter.topic}/{letter.partition}/{letter.offset}"
    why = _printable(f"{letter.step}, {letter.reason}")
    return f"{where} {when(letter.at_ms) or '-'} {why}: {letter.line[:_MOST_SHOWN]!r}{more}"


def _printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def when(at_ms: int | None) -> str:
    """Give a time, or nothing where it is not known."""
    return utc_time(at_ms) if at_ms is not None else ""


def number_of_letters(count: int) -> str:
    """Give `1 letter`, `2 letters`."""
    return "1 letter" if count == 1 else f"{count:,} letters"


def show_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Show rows of letters, with nothing in them that a terminal would obey."""
    show_rows(titles, [[_printable(cell) for cell in row] for row in rows])
