"""What alembic runs: on the connection, and in the transaction, that `consumers.migrate` has opened."""

from alembic import context

from consumers.migrate import CONSUMER_STEPS
from consumers.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=CONSUMER_STEPS.version_table,
)
with context.begin_transaction():
    context.run_migrations()
