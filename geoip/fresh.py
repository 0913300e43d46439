"""A table that stays fresh: a running process takes the file that has replaced its own, and survives any file.

A broken file, or none, leaves the old table in use, and is told of once: when it has looked the same for two looks,
for until then somebody may be writing it. Files are best replaced by a rename, as `geoip update` does.
"""

import asyncio
from typing import Final, NoReturn

from geoip.database import Database, DatabaseError
from process.logs import log

LOOK_SECONDS: Final = 5.0
"""Between looks at the file, each a stat. A new table is in use after 5 s, a broken one is told of after 10."""


async def keep_fresh(database: Database, look_seconds: float = LOOK_SECONDS) -> NoReturn:
    """Look at the table's file until cancelled; reads it in a thread."""
    refused: str | None = None
    while True:
        await asyncio.sleep(look_seconds)
        try:
            replaced = await asyncio.to_thread(database.reload_if_replaced)
        # Beside a table that cannot be used: one that does not fit into memory, or no thread to read it in.
        except (DatabaseError, MemoryError, RuntimeError) as error:
            refused = str(error) or type(error).__name__
            continue
        if replaced:
            log.info("geoip_reloaded", table=str(database))
        elif refused is not None:
            log.error(
                "geoip_refused", why=refused, kept=f"{database.database_type}, {database.built:%Y-%m-%d}"
            )
        refused = None
