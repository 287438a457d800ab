"""Alembic's entry point: runs migrations on the connection that monitoring.store.database gives."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="monitoring_migrations",
)
with context.begin_transaction():
    context.run_migrations()
