"""Parting the rows of a file that can be imported from those that cannot, by what the database knows."""

from collections.abc import Sequence
from dataclasses import dataclass

from links.link import Link
from links.link_files import Row
from links.store import LinkStore


@dataclass(frozen=True, slots=True)
class Import:
    """What importing a file comes to."""

    links: list[Link]
    """The good ones, as they were given."""
    new: int
    """How many of them are not in the database."""
    wrong: list[Row]
    """The others, in the order of the file."""


async def sifted(rows: Sequence[Row], store: LinkStore) -> Import:
    """Part the good rows from the wrong ones; raises LinkStoreError."""
    wrong = [row for row in rows if not isinstance(row.link, Link)]
    good = [(row, row.link) for row in rows if isinstance(row.link, Link)]
    # Without a wrong row another may become wrong, which wanted the slug that it would have given up: ask again.
    while (plan := await store.plan([link for _, link in good])).problems:
        wrong += [Row(good[place][0].number, problem) for place, problem in plan.problems.items()]
        good = [each for place, each in enumerate(good) if place not in plan.problems]
    new = sum(link.id not in plan.there for link in plan.links)
    return Import([link for _, link in good], new, sorted(wrong, key=lambda row: row.number))
