"""The tables of consumers as SQL has them: the newest migration ends here, which a test compares.

`consumers_positions` is what makes the others exact: it moves in the commit that changes them. Of attribution, clicks
and installs are what waits to be matched, and the outbox what waits for Kafka.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

METADATA: Final = MetaData()

EVENT_ID: Final = String(36).with_variant(UUID(as_uuid=False), "postgresql")

POSITIONS: Final = Table(
    "consumers_positions",
    METADATA,
    Column("consumer", String(64), primary_key=True),
    Column("cluster_id", String(64), primary_key=True),
    Column("topic", String(255), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)
DEAD_LETTERS: Final = Table(
    "consumers_dead_letters",
    METADATA,
    Column("consumer", String(64), primary_key=True),
    Column("cluster_id", String(64), primary_key=True),
    Column("topic", String(255), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("record_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("value", LargeBinary),
    Column("died_at", DateTime(timezone=True), nullable=False),
)
USERS: Final = Table(
    "users",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("total_clicks", BigInteger, nullable=False, server_default="0"),
)
LINK_DAYS: Final = Table(
    "totals_link_days",
    METADATA,
    Column("link_id", BigInteger, primary_key=True, autoincrement=False),
    Column("day", Date, primary_key=True),
    Column("clicks", BigInteger, nullable=False),
    Column("people", BigInteger, nullable=False),
    Column("bots", BigInteger, nullable=False),
    Column("counted_on", Date, nullable=False),
    Column("pruned", Boolean, nullable=False),
    Column("previews", BigInteger, nullable=False, server_default="0"),
    # What is found by it is what is still to be pruned, however many days there are.
    Index(
        "ix_totals_link_days_unpruned",
        "counted_on",
        postgresql_where=text("NOT pruned"),
        sqlite_where=text("NOT pruned"),
    ),
)
LINK_DAYS_BY: Final = Table(
    "totals_link_days_by",
    METADATA,
    Column("link_id", BigInteger, primary_key=True, autoincrement=False),
    Column("day", Date, primary_key=True),
    Column("what", String(16), primary_key=True),
    Column("value", String(255), primary_key=True),
    Column("clicks", BigInteger, nullable=False),
)
VISITORS: Final = Table(
    "totals_visitors",
    METADATA,
    Column("link_id", BigInteger, primary_key=True, autoincrement=False),
    Column("day", Date, primary_key=True),
    Column("visitor", LargeBinary, primary_key=True),
    sqlite_with_rowid=False,  # the key is all there is
)


def _referrals(name: str, schema: str | None) -> Table:
    texts = (
        *("domain", "registrable_domain", "host", "path", "visitor_id", "country", "platform", "bot_name"),
        *("bot_class", "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"),
    )
    return Table(
        name,
        MetaData(),
        Column("event_id", EVENT_ID, primary_key=True),
        Column("logged_at", DateTime(timezone=True), nullable=False),
        Column("suspected_bot", Boolean, nullable=False),
        *(Column(text, Text) for text in texts),
        Index("ix_referrals_logged_at", "logged_at"),
        Index("ix_referrals_domain", "domain"),
        schema=schema,
    )


REFERRALS: Final = {
    "postgresql": _referrals("referrals", "events"),
    "sqlite": _referrals("events_referrals", None),  # SQLite has no schemas
}

ATTRIBUTIONS: Final = Table(
    "attributions",
    METADATA,
    Column("install_id", EVENT_ID, primary_key=True),
    Column("click_id", EVENT_ID, nullable=False),
    Column("event_id", EVENT_ID, nullable=False),  # of the /t/mac
    Column("matched_by", String(16), nullable=False),
    Column("installed_at", DateTime(timezone=True), nullable=False),
    Column("clicked_at", DateTime(timezone=True), nullable=False),
    Column("attributed_at", DateTime(timezone=True), nullable=False),
    Column("link_id", BigInteger),
    Column("user_id", BigInteger),
    Column("campaign", Text),
    Column("network", Text),
    Column("country", Text),
    Column("platform", Text),
    Index("ix_attributions_link", "link_id", "installed_at"),
)
ATTRIBUTION_CLICKS: Final = Table(
    "attribution_clicks",
    METADATA,
    Column("event_id", EVENT_ID, primary_key=True),
    Column("lookup_key", LargeBinary, nullable=False),
    Column("clicked_at_ms", BigInteger, nullable=False),
    Column("window_from", BigInteger, nullable=False),
    Column("window_till", BigInteger, nullable=False),
    Column("link_id", BigInteger),
    Column("user_id", BigInteger),
    Column("campaign", Text),
    Column("network", Text),
    Column("message", LargeBinary),  # whole, where it was a text
    Index("ix_attribution_clicks_key", "lookup_key", "clicked_at_ms"),
    Index("ix_attribution_clicks_till", "window_till"),
)
ATTRIBUTION_INSTALLS: Final = Table(
    "attribution_installs",
    METADATA,
    Column("event_id", EVENT_ID, primary_key=True),
    Column("waits_till", BigInteger, nullable=False),
    Column("record_key", LargeBinary),
    Column("value", LargeBinary, nullable=False),
    Index("ix_attribution_installs_till", "waits_till"),
)
ATTRIBUTION_KEYS: Final = Table(
    "attribution_install_keys",
    METADATA,
    Column("event_id", EVENT_ID, primary_key=True),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("lookup_key", LargeBinary, nullable=False),
    Column("installed_at", BigInteger, nullable=False),
    Index("ix_attribution_install_keys_key", "lookup_key", "installed_at"),
)
ATTRIBUTION_OUTBOX: Final = Table(
    "attribution_outbox",
    METADATA,
    Column("event_id", EVENT_ID, primary_key=True),
    Column("place", String(128), nullable=False),
    Column("batch_id", EVENT_ID),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("record_key", LargeBinary),
    Column("value", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("refused", Text),  # by Kafka, and why: it stays here
    Index("ix_attribution_outbox_batch", "batch_id", "made_at_ms"),
)
