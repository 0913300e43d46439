"""Writes what was measured into docs/benchmarks.md: `.venv/bin/python bench/document.py`.

Takes bench/results.json, or the file that is named, and replaces what stands between `<!-- part -->` and
`<!-- /part -->`; the sentences around it are written by people.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from capacity import capacity, costs_of, order
from table import Row, kept, number

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
COMMITTED = Path(__file__).parent / "results.json"


def written(text: str, tables: dict[str, str]) -> str:
    """Give the document with other tables."""
    for part, table in tables.items():
        marks = rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)"
        text = re.sub(
            marks, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text, flags=re.DOTALL
        )
    return text


def table_of(found: Sequence[Row]) -> str:
    """Give rows as Markdown: the median, the least and the most, the ratio to the baseline."""
    lines = ["| | median | least – most | × | of |", "|---|---|---|---|---|"]
    for row in found:
        ratio = "" if row.ratio is None else number(row.ratio)
        lines.append(
            f"| {row.name} | {number(row.value)} {row.unit} | {number(min(row.found))} – {number(max(row.found))} "
            f"| {ratio} | {row.baseline} |"
        )
    return "\n".join(lines)


def main() -> None:
    parts = kept(Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED)
    tables = {part: table_of(found) for part, found in parts.items()}
    costs = costs_of(parts)
    tables |= {"capacity": capacity(costs), "order": order(costs)}
    DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8"), tables), "utf-8")


if __name__ == "__main__":
    main()
