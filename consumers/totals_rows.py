"""What a batch adds to the tables of totals, and what is taken out of them again.

Tables are written in one order and rows in the order of their keys: two members that count the same link wait for
each other, and never each for the other.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Table, bindparam, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.counts import Counts, LinkDay
from consumers.insertion import insert
from consumers.schema import LINK_DAYS, LINK_DAYS_BY, REFERRALS, USERS, VISITORS
from links.schema import LINKS, REVISION

PRUNED_AT_ONCE: Final = 100
"""Days of links whose visitors go in one commit: a long backlog goes in many short ones."""


async def add(connection: AsyncConnection, counts: Counts) -> None:
    """Add what a batch says."""
    people = await _add_visitors(connection, counts.visitors)
    await _add(
        connection, LINK_DAYS, _link_days(counts, people), sums=("clicks", "people", "bots", "previews")
    )
    await _add(
        connection,
        LINK_DAYS_BY,
        [
            {"link_id": link_id, "day": day, "what": what, "value": value, "clicks": clicks}
            for (link_id, day, what, value), clicks in sorted(counts.by.items())
        ],
        sums=("clicks",),
    )
    users = [{"id": user, "total_clicks": clicks} for user, clicks in sorted(counts.users.items())]
    await _add(connection, USERS, users, sums=("total_clicks",))
    if counts.referrals:
        rows = [row for _, row in sorted(counts.referrals.items())]
        new, parameters = insert(REFERRALS[connection.dialect.name], rows, connection.dialect)
        await connection.execute(new.on_conflict_do_nothing(), parameters)
    await _add_to_links(connection, counts.links)


async def prune(connection: AsyncConnection, before: date) -> int:
    """Forget who clicked on days of links that were last counted before a day; gives how many such days there were.

    Their counts stay.
    """
    old = (
        select(LINK_DAYS.c.link_id, LINK_DAYS.c.day)
        .where(~LINK_DAYS.c.pruned, LINK_DAYS.c.counted_on < before)
        .order_by(LINK_DAYS.c.link_id, LINK_DAYS.c.day)
        .limit(PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    found = [tuple(row) for row in await connection.execute(old)]
    if found:
        for table, change in (
            (VISITORS, delete(VISITORS)),
            (LINK_DAYS, update(LINK_DAYS).values(pruned=True)),
        ):
            await connection.execute(change.where(tuple_(table.c.link_id, table.c.day).in_(found)))
    return len(found)


async def _add_visitors(
    connection: AsyncConnection, visitors: Iterable[tuple[int, date, bytes]]
) -> Counter[LinkDay]:
    """Add visitors; gives how many of them were new to each link and day."""
    rows = [
        {"link_id": link_id, "day": day, "visitor": visitor} for link_id, day, visitor in sorted(visitors)
    ]
    if not rows:
        return Counter()
    new, parameters = insert(VISITORS, rows, connection.dialect)
    told = new.on_conflict_do_nothing().returning(VISITORS.c.link_id, VISITORS.c.day)
    return Counter((link_id, day) for link_id, day in await connection.execute(told, parameters))


def _link_days(counts: Counts, people: Mapping[LinkDay, int]) -> list[dict[str, Any]]:
    today = datetime.now(UTC).date()
    return [
        {
            "link_id": link_id,
            "day": day,
            "clicks": counts.clicks[link_id, day],
            "people": people.get((link_id, day), 0),
            "bots": counts.bots[link_id, day],
            "previews": counts.previews[link_id, day],
            "counted_on": today,
            "pruned": False,
        }
        for link_id, day in sorted({*counts.clicks, *counts.bots})
    ]


async def _add(
    connection: AsyncConnection, table: Table, rows: list[dict[str, Any]], *, sums: Iterable[str]
) -> None:
    """Insert rows; where one is there, add to its sums and replace what is neither key nor sum."""
    if not rows:
        return
    new, parameters = insert(table, rows, connection.dialect)
    changed = {
        column.name: column + new.excluded[column.name] if column.name in sums else new.excluded[column.name]
        for column in table.columns
        if not column.primary_key
    }
    added = new.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)
    await connection.execute(added, parameters)


async def _add_to_links(connection: AsyncConnection, links: Mapping[int, int]) -> None:
    """Add to `links.total_clicks`, last, and behind the lock that every change of links takes first.

    So neither waits for the other while it holds what the other wants.
    """
    if not links:
        return
    await connection.execute(select(REVISION.c.last).with_for_update())
    one = (
        update(LINKS)
        .where(LINKS.c.id == bindparam("link_id"))
        .values(total_clicks=LINKS.c.total_clicks + bindparam("new_clicks"))
    )
    rows = [{"link_id": link_id, "new_clicks": clicks} for link_id, clicks in sorted(links.items())]
    await connection.execute(one, rows)
