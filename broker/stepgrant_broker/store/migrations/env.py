"""Runs revisions on the connection that `schema.py` gives; Alembic loads this file by its path."""

from __future__ import annotations

from alembic import context

from stepgrant_broker.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
