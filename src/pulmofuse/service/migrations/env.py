"""What alembic runs: the migrations, on the connection that `database` hands over."""

from alembic import context

from pulmofuse.service.database import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot change a column in place
)
with context.begin_transaction():
    context.run_migrations()
