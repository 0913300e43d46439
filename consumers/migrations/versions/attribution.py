"""The tables of attribution."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0002"
down_revision = "0001"

_EVENT_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "attributions",
        sa.Column("install_id", _EVENT_ID, primary_key=True),
        sa.Column("click_id", _EVENT_ID, nullable=False),
        sa.Column("event_id", _EVENT_ID, nullable=False),
        sa.Column("matched_by", sa.String(16), nullable=False),
        sa.Column("installed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("clicked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attributed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("link_id", sa.BigInteger),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("campaign", sa.Text),
        sa.Column("network", sa.Text),
        sa.Column("country", sa.Text),
        sa.Column("platform", sa.Text),
    )
    op.create_index("ix_attributions_link", "attributions", ["link_id", "installed_at"])
    op.create_table(
        "attribution_clicks",
        sa.Column("event_id", _EVENT_ID, primary_key=True),
        sa.Column("lookup_key", sa.LargeBinary, nullable=False),
        sa.Column("clicked_at_ms", sa.BigInteger, nullable=False),
        sa.Column("window_from", sa.BigInteger, nullable=False),
        sa.Column("window_till", sa.BigInteger, nullable=False),
        sa.Column("link_id", sa.BigInteger),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("campaign", sa.Text),
        sa.Column("network", sa.Text),
        sa.Column("message", sa.LargeBinary),
    )
    op.create_index("ix_attribution_clicks_key", "attribution_clicks", ["lookup_key", "clicked_at_ms"])
    op.create_index("ix_attribution_clicks_till", "attribution_clicks", ["window_till"])
    op.create_table(
        "attribution_installs",
        sa.Column("event_id", _EVENT_ID, primary_key=True),
        sa.Column("waits_till", sa.BigInteger, nullable=False),
        sa.Column("record_key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_attribution_installs_till", "attribution_installs", ["waits_till"])
    op.create_table(
        "attribution_install_keys",
        sa.Column("event_id", _EVENT_ID, primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("lookup_key", sa.LargeBinary, nullable=False),
        sa.Column("installed_at", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "ix_attribution_install_keys_key", "attribution_install_keys", ["lookup_key", "installed_at"]
    )
    op.create_table(
        "attribution_outbox",
        sa.Column("event_id", _EVENT_ID, primary_key=True),
        sa.Column("place", sa.String(128), nullable=False),
        sa.Column("batch_id", _EVENT_ID),
        sa.Column("made_at_ms", sa.BigInteger, nullable=False),
        sa.Column("record_key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.Text),
    )
    op.create_index("ix_attribution_outbox_batch", "attribution_outbox", ["batch_id", "made_at_ms"])
