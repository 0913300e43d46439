"""The tables of links as SQL has them: the newest migration ends here, which a test compares.

`links` has a column a field; a deleted link stays as a row without a slug, so that every process learns of the
deletion and no number is given twice. `links_revision` has one row: the number of the last change.
"""

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

from links.link import Link

METADATA: Final = MetaData()

_TYPES: Final[dict[str, Any]] = {
    "id": BigInteger,
    "target_url": JSON,
    "attribution_window_fingerprint": Integer,
    "attribution_window_idfa": Integer,
    "user_id": BigInteger,
    "slug": String(64),
    "forward_query": Boolean,
    "store_referrer": Boolean,
    "schemes": JSON,
    "starts_at": String(40),  # RFC 3339 with its zone: the same text in every database
    "expires_at": String(40),
    "enabled": Boolean,
    "tags": JSON,
}

LINKS: Final = Table(
    "links",
    METADATA,
    *(
        Column(name, _TYPES.get(name, Text), primary_key=name == "id", autoincrement=False)
        for name in Link.__struct_fields__
    ),
    Column("total_clicks", BigInteger, nullable=False, default=0, server_default="0"),
    Column("revision", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False, default=False),
    Index("ix_links_changes", "revision", "id"),  # what is new is read in this order, a page at a time
    Index("ix_links_slug", "slug"),  # not unique: two links may swap their slugs in one import
)
REVISION: Final = Table(
    "links_revision",
    METADATA,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
)
