"""What ClickHouse and SQL have of a range of time: the event ids of their rows."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec
from pydantic import SecretStr
from sqlalchemy import func, inspect, select

from consumers.clickhouse_rows import quoted
from consumers.clickhouse_server import ClickHouseServer
from consumers.identity import Kind, Range, Seen
from consumers.kafka_range import OnProgress
from consumers.schema import REFERRALS
from consumers.sink import RefusedError, SinkAwayError
from links.database import open_engine, said

_AT_ONCE: Final = 4_000

_CLICKS: Final = """
FROM link_clicks
WHERE clicked_at >= fromUnixTimestamp64Milli({begin}) AND clicked_at < fromUnixTimestamp64Milli({end})
AND kafka_topic IN ({clicks}, {bots})
"""

_decode_row: Final = msgspec.json.Decoder(tuple[str, str]).decode


async def clickhouse_ids(
    url: SecretStr, prefix: str, when: Range, on_progress: OnProgress
) -> AsyncIterator[list[Seen]]:
    """Give the clicks of `link_clicks`; raises SinkAwayError."""
    server = ClickHouseServer(url)
    clicks = _CLICKS.format(
        begin=when.begin_ms, end=when.end_ms, clicks=quoted(f"{prefix}clicks"), bots=quoted(f"{prefix}bots")
    )
    try:
        answer = await server.ask(f"SELECT toUInt32(count()) {clicks} FORMAT JSONCompactEachRow")
        (whole,) = msgspec.json.decode(answer, type=tuple[int])
        read = 0
        found: list[Seen] = []
        async for line in server.lines(f"SELECT event_id, kafka_topic {clicks} FORMAT JSONCompactEachRow"):
            event_id, topic = _decode_row(line)
            found.append(Seen(event_id, Kind.CLICK, topic.removeprefix(prefix)))
            if len(found) == _AT_ONCE:
                yield found
                read, found = read + len(found), []
                on_progress(read, whole)
        yield found
        on_progress(whole, whole)
    except RefusedError as error:
        raise SinkAwayError(str(error)) from error
    except msgspec.MsgspecError as error:
        raise SinkAwayError(f"ClickHouse breaks off: {error}") from error
    finally:
        await server.close()


async def sql_ids(database_url: SecretStr, when: Range, on_progress: OnProgress) -> AsyncIterator[list[Seen]]:
    """Give the referrals of `events.referrals`; raises LinkStoreError."""
    engine = open_engine(database_url.get_secret_value())
    table = REFERRALS[engine.dialect.name]
    inside = (table.c.logged_at >= when.begin, table.c.logged_at < when.end)
    try:
        with said("events.referrals cannot be read"):
            async with engine.connect() as connection:
                whole = await connection.scalar(select(func.count()).where(*inside)) or 0
                read = 0
                rows = await connection.stream(select(table.c.event_id).where(*inside))
                async for some in rows.partitions(_AT_ONCE):
                    yield [Seen(str(event_id), Kind.REFERRAL, "referrals") for (event_id,) in some]
                    read += len(some)
                    on_progress(read, whole)
    finally:
        await engine.dispose()


async def has_referrals(database_url: SecretStr) -> bool:
    """Tell whether totals has ever made its tables there; raises LinkStoreError."""
    engine = open_engine(database_url.get_secret_value())
    table = REFERRALS[engine.dialect.name]
    try:
        with said("the database cannot be read"):
            async with engine.connect() as connection:
                return await connection.run_sync(
                    lambda synchronous: inspect(synchronous).has_table(table.name, table.schema)
                )
    finally:
        await engine.dispose()
