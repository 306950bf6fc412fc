"""What Alembic runs to migrate: on the connection that `store.schema` opened, or as SQL text.

All revisions of one run are one transaction: a crash here leaves the schema as it was.
"""

from alembic import context

if context.is_offline_mode():
    context.configure(dialect_name=context.config.attributes["dialect"], literal_binds=True)
else:
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)

with context.begin_transaction():
    context.run_migrations()
