"""The tables of attribution: what a batch adds, which installs and clicks find each other, and what is forgotten.

Every install is kept as one that waits, with its keys, and every click with its window; then those that a batch can
have brought together are looked for in SQL, so that it makes no difference which came first. Whoever does this holds
a lock until the commit: of two members, one with the click and one with its install, the second sees the first's.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, any_, bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.attribution_events import MATCHED_BY, Click, Install, install_of
from consumers.insertion import insert
from consumers.mac import mac_id, mac_value
from consumers.schema import (
    ATTRIBUTION_CLICKS,
    ATTRIBUTION_INSTALLS,
    ATTRIBUTION_KEYS,
    ATTRIBUTION_OUTBOX,
    ATTRIBUTIONS,
)

PRUNED_AT_ONCE: Final = 1_000
"""Clicks, and installs, that go in one commit: a long backlog goes in many short ones."""

_MATCHED_AT_ONCE: Final = 100
"""Installs whose /t/mac are made together: 0.2 MB of ordinary ones, 100 MB of the largest there may be."""

_ASKED_AT_ONCE: Final = 5_000
"""Ids in a question: SQLite takes 32,766 parameters."""

_LOCK: Final = text("SELECT pg_advisory_xact_lock(4677003)")
"""SQLite has one writer at a time anyway, from its first change on: the positions'."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a batch adds."""

    clicks: Mapping[str, Click]
    """By event id."""
    installs: Mapping[str, Install]
    """By event id."""
    sources: Mapping[str, tuple[bytes | None, bytes]]
    """Key and value of the installs' records, by event id."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When and for which Kafka this is done."""

    place: str
    """As kafkastore.destination has it."""
    now_ms: int
    waits_till: int
    """Until when the batch's installs wait: Unix time in seconds."""


async def lock(connection: AsyncConnection) -> None:
    """Let nobody else match until the commit. Positions are moved before, so that nobody waits in a circle."""
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK)


async def add(connection: AsyncConnection, kept: Kept, moment: Moment) -> Counter[str]:
    """Add a batch; gives how many installs found their click, by what they were matched by."""
    rows = [{name: getattr(click, name) for name in Click.__slots__} for click in kept.clicks.values()]
    await _insert(connection, ATTRIBUTION_CLICKS, rows)
    waiting = await _add_installs(connection, kept, moment)
    matched: Counter[str] = Counter()
    for some in _parts(waiting, _MATCHED_AT_ONCE):
        matched += await _match(connection, some, moment)
    for some in _parts(list(kept.clicks), _ASKED_AT_ONCE):
        # Each install that is found is matched and waits no longer: this ends.
        while found := await _waiting_for(connection, some):
            matched += await _match(connection, found, moment)
    return matched


async def prune(connection: AsyncConnection, *, till_before: int, now: int) -> tuple[int, int]:
    """Forget clicks whose window ended before a time, and installs that waited long; gives how many of each."""
    clicks, installs = ATTRIBUTION_CLICKS, ATTRIBUTION_INSTALLS
    old = select(clicks.c.event_id).where(clicks.c.window_till < till_before).limit(PRUNED_AT_ONCE)
    gone = select(installs.c.event_id).where(installs.c.waits_till < now).limit(PRUNED_AT_ONCE)
    forgotten = await connection.execute(delete(clicks).where(clicks.c.event_id.in_(old)))
    tired = list(await connection.scalars(gone))
    await _forget_installs(connection, tired)
    return forgotten.rowcount, len(tired)


async def _add_installs(connection: AsyncConnection, kept: Kept, moment: Moment) -> list[str]:
    """Let installs wait that are not attributed yet; gives their ids."""
    attributed: set[str] = set()
    for some in _parts(list(kept.installs), _ASKED_AT_ONCE):
        asked = select(ATTRIBUTIONS.c.install_id).where(_among(connection, ATTRIBUTIONS.c.install_id, some))
        attributed.update(await connection.scalars(asked))
    new = [
        install
        for event_id, install in sorted(kept.installs.items())
        if install.keys and event_id not in attributed
    ]
    rows = [
        {
            "event_id": install.event_id,
            "waits_till": moment.waits_till,
            "record_key": kept.sources[install.event_id][0],
            "value": kept.sources[install.event_id][1],
        }
        for install in new
    ]
    keys = [
        {
            "event_id": install.event_id,
            "rank": rank,
            "lookup_key": key,
            "installed_at": install.installed_at,
        }
        for install in new
        for rank, key in install.keys
    ]
    await _insert(connection, ATTRIBUTION_INSTALLS, rows)
    await _insert(connection, ATTRIBUTION_KEYS, keys)
    return [install.event_id for install in new]


async def _waiting_for(connection: AsyncConnection, click_ids: Sequence[str]) -> list[str]:
    """Give some installs that one of these clicks, at least, is for."""
    clicks, keys = ATTRIBUTION_CLICKS, ATTRIBUTION_KEYS
    found = (
        select(keys.c.event_id)
        .distinct()
        .join(clicks, _fits())
        .where(_among(connection, clicks.c.event_id, click_ids))
        .limit(_MATCHED_AT_ONCE)
    )
    return list(await connection.scalars(found))


async def _match(connection: AsyncConnection, install_ids: Sequence[str], moment: Moment) -> Counter[str]:
    """Attribute those of some installs that have a click: the first of their keys decides, of its clicks the last."""
    clicks, keys = ATTRIBUTION_CLICKS, ATTRIBUTION_KEYS
    last = (
        select(clicks.c.event_id)
        .where(_fits())
        .order_by(clicks.c.clicked_at_ms.desc(), clicks.c.event_id.desc())
        .limit(1)
        .correlate(keys)
        .scalar_subquery()
    )
    asked = (
        select(keys.c.event_id, keys.c.rank, last)
        .where(_among(connection, keys.c.event_id, install_ids))
        .order_by(keys.c.event_id, keys.c.rank.desc())
    )
    # The surest key comes last, and stays.
    found = {
        install: (rank, click)
        for install, rank, click in await connection.execute(asked)
        if click is not None
    }
    if not found:
        return Counter()
    await _attribute(connection, found, moment)
    await _forget_installs(connection, list(found))
    return Counter(MATCHED_BY[rank] for rank, _ in found.values())


async def _attribute(
    connection: AsyncConnection, found: Mapping[str, tuple[int, str]], moment: Moment
) -> None:
    clicks, installs = ATTRIBUTION_CLICKS, ATTRIBUTION_INSTALLS
    click_ids = sorted({click for _, click in found.values()})
    asked = select(clicks).where(_among(connection, clicks.c.event_id, click_ids))
    click_of = {row.event_id: row for row in await connection.execute(asked)}
    waiting = select(installs.c.event_id, installs.c.record_key, installs.c.value).where(
        _among(connection, installs.c.event_id, sorted(found))
    )
    rows, outbox = [], []
    for install_id, record_key, value in await connection.execute(waiting.order_by(installs.c.event_id)):
        install = install_of(value, install_id)
        if install is None:
            raise ValueError(f"what waits as {install_id} is no install")
        rank, click_id = found[install_id]
        click = click_of[click_id]
        event_id = mac_id(install_id, click_id)
        rows.append(_attribution(install, click, event_id, MATCHED_BY[rank], moment))
        mac = mac_value(install, value, click_id=click_id, network=click.network, click_message=click.message)
        outbox.append(
            {
                "event_id": event_id,
                "place": moment.place,
                "made_at_ms": moment.now_ms,
                "record_key": record_key,
                "value": mac,
                "at_ms": install.installed_at * 1000,
            }
        )
    await _insert(connection, ATTRIBUTIONS, rows)
    await _insert(connection, ATTRIBUTION_OUTBOX, outbox)


def _attribution(
    install: Install, click: Any, event_id: str, matched_by: str, moment: Moment
) -> dict[str, Any]:
    return {
        "install_id": install.event_id,
        "click_id": click.event_id,
        "event_id": event_id,
        "matched_by": matched_by,
        "installed_at": datetime.fromtimestamp(install.installed_at, UTC),
        "clicked_at": datetime.fromtimestamp(click.clicked_at_ms / 1000, UTC),
        "attributed_at": datetime.fromtimestamp(moment.now_ms / 1000, UTC),
        "link_id": click.link_id,
        "user_id": click.user_id,
        "campaign": click.campaign,
        "network": click.network,
        "country": install.country,
        "platform": install.platform,
    }


async def _forget_installs(connection: AsyncConnection, install_ids: Sequence[str]) -> None:
    for table in (ATTRIBUTION_KEYS, ATTRIBUTION_INSTALLS):
        for some in _parts(install_ids, _ASKED_AT_ONCE):
            await connection.execute(delete(table).where(_among(connection, table.c.event_id, some)))


def _fits() -> ColumnElement[bool]:
    """Tell whether a click is for an install: it has the key, and the install is inside its window."""
    clicks, keys = ATTRIBUTION_CLICKS, ATTRIBUTION_KEYS
    return (clicks.c.lookup_key == keys.c.lookup_key) & keys.c.installed_at.between(
        clicks.c.window_from, clicks.c.window_till
    )


async def _insert(connection: AsyncConnection, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, except those that are there already."""
    if rows:
        new, parameters = insert(table, rows, connection.dialect)
        await connection.execute(new.on_conflict_do_nothing(), parameters)


def _among(connection: AsyncConnection, column: Column[Any], values: Sequence[str]) -> ColumnElement[bool]:
    """Tell whether a column has one of many values; PostgreSQL gets them as one array."""
    if connection.dialect.name != "postgresql":
        return column.in_(values)
    from sqlalchemy.dialects.postgresql import ARRAY  # noqa: PLC0415 (one of the two is used)

    return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))


def _parts(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for begin in range(0, len(values), size):
        yield values[begin : begin + size]
