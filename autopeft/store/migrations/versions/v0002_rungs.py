"""Measurements at rungs, and curve points on part of the search split: trials that were stopped early."""

from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD_KEY = ["trial_id", "split", "train_examples", "epochs", "seed"]
_AT_THE_END = sa.text("rung_step IS NULL")


def _altered(table: str) -> AbstractContextManager[BatchOperations]:
    # SQLite cannot alter constraints in place, and what it adds stands behind them.
    is_sqlite = op.get_context().dialect.name == "sqlite"
    return op.batch_alter_table(table, recreate="always" if is_sqlite else "never")


def upgrade() -> None:
    with _altered("measurements") as batch:
        for name in ("rung_step", "rung_n_steps", "rung_examples"):
            batch.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
        batch.drop_constraint(op.f("uq_measurements_identity"), type_="unique")
        batch.create_unique_constraint("uq_measurements_identity", [*_OLD_KEY, "rung_step"])
        batch.create_check_constraint(op.f("ck_measurements_rung"), "(rung_step IS NULL) = (rung_n_steps IS NULL)")
        batch.create_check_constraint(op.f("ck_measurements_rung_step"), "rung_step >= 1 AND rung_step < rung_n_steps")
    op.create_index(
        "uq_measurements_end",
        "measurements",
        _OLD_KEY,
        unique=True,
        sqlite_where=_AT_THE_END,
        postgresql_where=_AT_THE_END,
    )
    with _altered("curve_points") as batch:
        batch.add_column(sa.Column("n_examples", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Measurements at rungs go: the older schema would take them for those of a run's end."""
    op.drop_index("uq_measurements_end", "measurements")
    op.execute("DELETE FROM measurements WHERE rung_step IS NOT NULL")
    with _altered("curve_points") as batch:
        batch.drop_column("n_examples")
    with _altered("measurements") as batch:
        batch.drop_constraint(op.f("ck_measurements_rung_step"), type_="check")
        batch.drop_constraint(op.f("ck_measurements_rung"), type_="check")
        batch.drop_constraint("uq_measurements_identity", type_="unique")
        batch.create_unique_constraint("uq_measurements_identity", _OLD_KEY)
        for name in ("rung_examples", "rung_n_steps", "rung_step"):
            batch.drop_column(name)
