"""The tables of consumers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them; `users` may be there already."""
    op.create_table(
        "consumers_positions",
        sa.Column("consumer", sa.String(64), primary_key=True),
        sa.Column("cluster_id", sa.String(64), primary_key=True),
        sa.Column("topic", sa.String(255), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "consumers_dead_letters",
        sa.Column("consumer", sa.String(64), primary_key=True),
        sa.Column("cluster_id", sa.String(64), primary_key=True),
        sa.Column("topic", sa.String(255), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("record_offset", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary),
        sa.Column("died_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("total_clicks", sa.BigInteger, nullable=False, server_default="0"),
        if_not_exists=True,
    )
    op.create_table(
        "totals_link_days",
        sa.Column("link_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("clicks", sa.BigInteger, nullable=False),
        sa.Column("people", sa.BigInteger, nullable=False),
        sa.Column("bots", sa.BigInteger, nullable=False),
        sa.Column("counted_on", sa.Date, nullable=False),
        sa.Column("pruned", sa.Boolean, nullable=False),
    )
    unpruned = sa.text("NOT pruned")
    op.create_index(
        "ix_totals_link_days_unpruned",
        "totals_link_days",
        ["counted_on"],
        postgresql_where=unpruned,
        sqlite_where=unpruned,
    )
    op.create_table(
        "totals_link_days_by",
        sa.Column("link_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("what", sa.String(16), primary_key=True),
        sa.Column("value", sa.String(255), primary_key=True),
        sa.Column("clicks", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "totals_visitors",
        sa.Column("link_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("visitor", sa.LargeBinary, primary_key=True),
        sqlite_with_rowid=False,
    )
    _create_referrals()


def _create_referrals() -> None:
    """PostgreSQL has it in a schema `events`, SQLite without one."""
    in_schema = op.get_bind().dialect.name == "postgresql"
    if in_schema:
        op.execute("CREATE SCHEMA IF NOT EXISTS events")
    name, schema = ("referrals", "events") if in_schema else ("events_referrals", None)
    op.create_table(
        name,
        sa.Column(
            "event_id", sa.String(36).with_variant(UUID(as_uuid=False), "postgresql"), primary_key=True
        ),
        sa.Column("logged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("suspected_bot", sa.Boolean, nullable=False),
        sa.Column("domain", sa.Text),
        sa.Column("registrable_domain", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("path", sa.Text),
        sa.Column("visitor_id", sa.Text),
        sa.Column("country", sa.Text),
        sa.Column("platform", sa.Text),
        sa.Column("bot_name", sa.Text),
        sa.Column("bot_class", sa.Text),
        sa.Column("utm_source", sa.Text),
        sa.Column("utm_medium", sa.Text),
        sa.Column("utm_campaign", sa.Text),
        sa.Column("utm_term", sa.Text),
        sa.Column("utm_content", sa.Text),
        schema=schema,
    )
    op.create_index("ix_referrals_logged_at", name, ["logged_at"], schema=schema)
    op.create_index("ix_referrals_domain", name, ["domain"], schema=schema)
