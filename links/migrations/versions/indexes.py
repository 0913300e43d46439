"""Indexes for a million links: changes are read a page at a time, slugs are looked up at every import."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Replace the index of revisions by one that also orders, and add that of slugs."""
    op.drop_index("ix_links_revision", "links")
    op.create_index("ix_links_changes", "links", ["revision", "id"])
    op.create_index("ix_links_slug", "links", ["slug"])
