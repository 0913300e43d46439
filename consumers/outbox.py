"""The outbox: each /t/mac is written here in the commit of its attribution, and leaves when Kafka has it.

As from a queue of ours in Redis: rows are claimed as a batch with a random id, published in one transaction with that
id, and only then forgotten. Whoever publishes next finds a batch in flight, and publishes it unless its id is the
last one in Kafka. Ids are compared, never numbers: rows become visible in another order than they are numbered.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update

from consumers.database import Database
from consumers.schema import ATTRIBUTION_OUTBOX as OUTBOX


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch in flight."""

    id: str
    rows: Sequence[Any]
    """Of `attribution_outbox`."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What waits for one Kafka. Each method raises SinkAwayError."""

    database: Database
    place: str
    """As kafkastore.destination has it: rows for another one stay."""

    async def claim(self, most: int) -> Claimed | None:
        """Give the batch in flight, else make one of the oldest rows."""
        mine = (OUTBOX.c.place == self.place) & OUTBOX.c.refused.is_(None)
        in_flight = select(OUTBOX.c.batch_id).where(mine, OUTBOX.c.batch_id.is_not(None)).limit(1)
        oldest = (
            select(OUTBOX.c.event_id)
            .where(mine, OUTBOX.c.batch_id.is_(None))
            .order_by(OUTBOX.c.made_at_ms)
            .limit(most)
        )
        async with self.database.commit("the outbox cannot be read") as connection:
            batch_id = await connection.scalar(in_flight)
            if batch_id is None:
                batch_id = str(uuid.uuid4())
                taken = update(OUTBOX).where(OUTBOX.c.event_id.in_(oldest), OUTBOX.c.batch_id.is_(None))
                if not (await connection.execute(taken.values(batch_id=batch_id))).rowcount:
                    return None
            whole = select(OUTBOX).where(OUTBOX.c.batch_id == batch_id).order_by(OUTBOX.c.made_at_ms)
            return Claimed(batch_id, list(await connection.execute(whole)))

    async def forget(self, batch_id: str) -> None:
        """Let go of a batch that is in Kafka."""
        async with self.database.commit("the outbox cannot be emptied") as connection:
            await connection.execute(delete(OUTBOX).where(OUTBOX.c.batch_id == batch_id))

    async def release(self, batch_id: str) -> None:
        """Let a batch that is certainly not in Kafka be claimed in smaller ones."""
        async with self.database.commit("the outbox cannot be changed") as connection:
            await connection.execute(
                update(OUTBOX).where(OUTBOX.c.batch_id == batch_id).values(batch_id=None)
            )

    async def refuse(self, batch_id: str, reason: str) -> None:
        """Keep what Kafka takes in no company, with the reason."""
        async with self.database.commit("the outbox cannot be changed") as connection:
            await connection.execute(
                update(OUTBOX).where(OUTBOX.c.batch_id == batch_id).values(batch_id=None, refused=reason)
            )

    async def waiting(self) -> int:
        """Count what is not in Kafka yet."""
        async with self.database.commit("the outbox cannot be read") as connection:
            count = select(func.count()).where(OUTBOX.c.place == self.place, OUTBOX.c.refused.is_(None))
            return await connection.scalar(count) or 0
