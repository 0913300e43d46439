"""The tables of links. Databases older than migrations have them already."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing."""
    op.create_table(
        "links",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("campaign", sa.Text),
        sa.Column("adgroup", sa.Text),
        sa.Column("ad", sa.Text),
        sa.Column("campaign_url", sa.Text),
        sa.Column("target_url", sa.JSON),
        sa.Column("attribution_window_fingerprint", sa.Integer),
        sa.Column("attribution_window_idfa", sa.Integer),
        sa.Column("network", sa.Text),
        sa.Column("country", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("slug", sa.String(64)),
        sa.Column("mode", sa.Text),
        sa.Column("utm_source", sa.Text),
        sa.Column("utm_medium", sa.Text),
        sa.Column("utm_campaign", sa.Text),
        sa.Column("utm_term", sa.Text),
        sa.Column("utm_content", sa.Text),
        sa.Column("forward_query", sa.Boolean),
        sa.Column("store_referrer", sa.Boolean),
        sa.Column("schemes", sa.JSON),
        sa.Column("starts_at", sa.String(40)),
        sa.Column("expires_at", sa.String(40)),
        sa.Column("enabled", sa.Boolean),
        sa.Column("tags", sa.JSON),
        sa.Column("total_clicks", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_links_revision", "links", ["revision"], if_not_exists=True)
    op.create_table(
        "links_revision",
        sa.Column("row", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.execute("INSERT INTO links_revision (row, last) VALUES (1, 0) ON CONFLICT DO NOTHING")
