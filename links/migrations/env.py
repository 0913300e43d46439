"""What alembic runs: on the connection, and in the transaction, that `links.migrate` has opened."""

from alembic import context

from links.migrate import LINK_STEPS
from links.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=LINK_STEPS.version_table,
)
with context.begin_transaction():
    context.run_migrations()
