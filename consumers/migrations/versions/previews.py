"""Previews of a link, which are counted among its bots, by themselves too."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the count; of days before, nobody knows: 0."""
    op.add_column(
        "totals_link_days", sa.Column("previews", sa.BigInteger, nullable=False, server_default="0")
    )
