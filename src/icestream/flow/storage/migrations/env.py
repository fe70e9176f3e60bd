"""What Alembic runs first: use the connection, and the transaction, that the runner gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
