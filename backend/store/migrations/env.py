"""Alembic's entry: migrations always run on a connection that `Database.migrate` gives."""

from alembic import context

from backend.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
    version_table="freeal_version",
)
context.run_migrations()
