"""Alembic's entry: migrations always run on a connection that `Database.migrate` gives."""

from alembic import context

from backend.store.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
    version_table=VERSION_TABLE,
)
context.run_migrations()
