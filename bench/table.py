"""What benchmarks print and keep: rows with their baselines, as one table and as JSON.

Only the ratio to a row of the same run is worth keeping: it is what a later run is compared with.
"""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

Figure = TypeVar("Figure")

MOVED = 0.15
"""A ratio that differs by more than this from the committed one is told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured several times."""

    name: str
    unit: str
    found: tuple[float, ...]
    baseline: str = ""
    """The row it is compared with."""
    ratio: float | None = None
    """Median of the rounds' ratios to the baseline's."""

    @property
    def value(self) -> float:
        """Give the median."""
        return statistics.median(self.found)


def in_turns(steps: Mapping[str, Callable[[], Figure]], rounds: int) -> dict[str, tuple[Figure, ...]]:
    """Measure each once, then each again: A-B-A-B."""
    found = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(step())
    return {name: tuple(values) for name, values in found.items()}


def rows(found: Mapping[str, Sequence[float]], unit: str, baselines: Mapping[str, str]) -> list[Row]:
    """Give the rows of some figures, each with its ratio to that of its baseline in the same round."""
    return [
        Row(name, unit, tuple(values))
        if (baseline := baselines.get(name)) is None
        else Row(
            name,
            unit,
            tuple(values),
            baseline,
            statistics.median(one / other for one, other in zip(values, found[baseline], strict=True)),
        )
        for name, values in found.items()
    ]


def show(found: Sequence[Row]) -> None:
    """Print rows as a table."""
    widest = max((len(row.name) for row in found), default=0)
    for row in found:
        spread = f"{number(min(row.found))} – {number(max(row.found))}"
        ratio = "" if row.ratio is None else f"{number(row.ratio)} × {row.baseline}"
        print(f"{row.name:<{widest}} {number(row.value):>10} {row.unit:<12} {spread:>21}  {ratio}")


def keep(found: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Write the rows of some parts as JSON, with the machine they were found on; those of other parts stay."""
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": sys.version.split()[0]}
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    parts = known.get("parts", {}) if known.get("machine") == machine else {}
    parts |= {part: [asdict(row) for row in some] for part, some in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "parts": parts}, indent=1, ensure_ascii=False) + "\n")


def kept(path: Path) -> dict[str, list[Row]]:
    """Read what was kept, by part."""
    parts = json.loads(path.read_text("utf-8"))["parts"]
    return {
        part: [Row(**row | {"found": tuple(row["found"])}) for row in some] for part, some in parts.items()
    }


def moved(found: Iterable[Row], committed: Iterable[Row]) -> list[str]:
    """Say which ratios are more than 15 % off those committed."""
    before = {row.name: row for row in committed}
    said = []
    for row in found:
        known = before.get(row.name)
        if known is None or known.baseline != row.baseline or not (known.ratio and row.ratio):
            continue
        if abs(row.ratio / known.ratio - 1) > MOVED:
            said.append(
                f"{row.name}: {number(known.ratio)} × {row.baseline} before, {number(row.ratio)} × now"
            )
    return said


def number(value: float) -> str:
    """Write a figure with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004
