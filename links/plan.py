"""What saving some links comes to: which numbers they get, and what is in the way of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import msgspec
from sqlalchemy import ColumnElement, func, select

from links.database import AsyncConnection
from links.link import LARGEST_ID, UNNUMBERED, InvalidLinkError, Link
from links.schema import LINKS

_BATCH: Final = 1_000
"""Links a round trip when many are written or looked up; SQLite takes 32,766 parameters."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Plan:
    """What saving some links would come to."""

    links: list[Link]
    """The links with their numbers, in the order they were given."""
    there: set[int]
    """The numbers of those links that are in the database already."""
    problems: dict[int, InvalidLinkError]
    """What is wrong, by the link's place in the order."""


async def plan_of(connection: AsyncConnection, links: Sequence[Link], *, replace: bool = True) -> Plan:
    """Find the numbers and the problems of some links, within the transaction that may then save them."""
    owners = await _lookup(connection, LINKS.c.slug, [link.slug for link in links if link.slug])
    numbered = await _numbered(connection, links, owners if replace else {})
    there = set((await _lookup(connection, LINKS.c.id, [link.id for link in numbered])).values())
    # A slug is taken by who will have it when all is saved: two links may swap theirs.
    saved = {link.id for link in numbered}
    seen = set()
    taken = {slug: owner for slug, owner in owners.items() if owner not in saved}
    problems: dict[int, InvalidLinkError] = {}
    for place, link in enumerate(numbered):
        if link.id > LARGEST_ID:
            problems[place] = InvalidLinkError("id", "there is no higher number left: give it one yourself")
        elif link.id in seen:
            problems[place] = InvalidLinkError("id", f"link {link.id} is given twice")
        elif link.id in there and not replace:
            problems[place] = InvalidLinkError(
                "id", f"link {link.id} is there already: edit that one, or leave the id out"
            )
        elif link.slug and taken.setdefault(link.slug, link.id) != link.id:
            problems[place] = InvalidLinkError("slug", f"`{link.slug}` is in use by link {taken[link.slug]}")
        seen.add(link.id)
    return Plan(numbered, there, problems)


async def _numbered(connection: AsyncConnection, links: Sequence[Link], owners: dict[str, int]) -> list[Link]:
    if all(link.id != UNNUMBERED for link in links):
        return list(links)
    last = max([await connection.scalar(select(func.max(LINKS.c.id))) or 0, *(link.id for link in links)])
    numbered = []
    for link in links:
        number = link.id
        if number == UNNUMBERED:
            number = owners.get(link.slug or "", last + 1)
            last = max(last, number)
        numbered.append(link if number == link.id else msgspec.structs.replace(link, id=number))
    return numbered


async def _lookup(
    connection: AsyncConnection, by: ColumnElement[Value], values: list[Value]
) -> dict[Value, int]:
    """Give the ids of the links whose column `by` has one of the values."""
    found: dict[Value, int] = {}
    for batch in batches(values):
        rows = select(by, LINKS.c.id).where(by.in_(batch), LINKS.c.deleted.is_(False))
        found.update((value, link_id) for value, link_id in await connection.execute(rows))
    return found


def batches(values: Iterable[Value]) -> Iterator[list[Value]]:
    """Give the values in lists that one statement takes."""
    rest = iter(values)
    while batch := list(islice(rest, _BATCH)):
        yield batch
