"""Alembic's entry point; the connection and its transaction are the caller's (`autopeft.store._schema`)."""

from alembic import context

from autopeft.store._models import Base
from autopeft.store._schema import VERSION_TABLE

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run through `autopeft db upgrade`, which brings the connection.")

context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite cannot alter constraints in place; batch mode copies the table.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
