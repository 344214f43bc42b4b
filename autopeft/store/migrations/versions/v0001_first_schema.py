"""First schema: studies, trials, measurements, leases, learning curves."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("name", name=op.f("uq_studies_name")),
    )
    op.create_table(
        "study_attributes",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_attributes_study_id_studies")),
        sa.PrimaryKeyConstraint("study_id", "key", name=op.f("pk_study_attributes")),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("trainable_parameters", sa.BigInteger(), nullable=False),
        sa.Column("train_examples", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("params", sa.Text(), nullable=True),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("failure_traceback", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'FAILED') = (failure_reason IS NOT NULL)", name=op.f("ck_trials_failure_reason")),
        sa.CheckConstraint(
            "(state = 'FAILED') = (failure_message IS NOT NULL)", name=op.f("ck_trials_failure_message")
        ),
        sa.CheckConstraint("state = 'FAILED' OR failure_traceback IS NULL", name=op.f("ck_trials_failure_traceback")),
        sa.CheckConstraint("(state = 'WAITING') = (started_at IS NULL)", name=op.f("ck_trials_started")),
        sa.CheckConstraint(
            "(state IN ('WAITING', 'RUNNING')) = (finished_at IS NULL)", name=op.f("ck_trials_finished")
        ),
        sa.CheckConstraint("kind IN ('search', 'baseline', 'confirmation')", name=op.f("ck_trials_kind")),
        sa.CheckConstraint(
            "role = CASE WHEN kind = 'confirmation' THEN 'confirmation' ELSE 'trial' END", name=op.f("ck_trials_role")
        ),
        sa.CheckConstraint("state = 'WAITING' OR worker IS NOT NULL", name=op.f("ck_trials_worker")),
        sa.CheckConstraint(
            "state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'FAILED')", name=op.f("ck_trials_state")
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_trials_attempts")),
        sa.CheckConstraint("number >= 0", name=op.f("ck_trials_number")),
        sa.CheckConstraint("train_examples >= 1 AND epochs >= 1", name=op.f("ck_trials_fidelity")),
        sa.CheckConstraint("trainable_parameters >= 0", name=op.f("ck_trials_trainable_parameters")),
        sa.ForeignKeyConstraint(
            ["study_id", "parent"], ["trials.study_id", "trials.number"], name=op.f("fk_trials_study_id_parent_trials")
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_trials_study_id_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_trials_study_id_number")),
        sa.UniqueConstraint(
            "study_id", "role", "fingerprint", "train_examples", "epochs", "seed", name="uq_trials_identity"
        ),
    )
    op.create_index(op.f("ix_trials_study_id_state_number"), "trials", ["study_id", "state", "number"], unique=False)
    op.create_table(
        "leases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.CheckConstraint("outcome IN ('finished', 'released', 'lost')", name=op.f("ck_leases_outcome")),
        sa.CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name=op.f("ck_leases_ended")),
        sa.CheckConstraint("expires_at >= heartbeat_at", name=op.f("ck_leases_expiry")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_leases_trial_id_trials")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_trial_id"), "leases", ["trial_id"], unique=False)
    op.create_index(
        "uq_leases_held",
        "leases",
        ["trial_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("train_examples", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("costs", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("curve", sa.Text(), nullable=False),
        sa.Column("predictions", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("split IN ('search', 'report')", name=op.f("ck_measurements_split")),
        sa.CheckConstraint("train_examples >= 1 AND epochs >= 1", name=op.f("ck_measurements_fidelity")),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_measurements_trial_id_trials")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_measurements")),
        sa.UniqueConstraint("trial_id", "split", "train_examples", "epochs", "seed", name="uq_measurements_identity"),
    )
    op.create_table(
        "curve_points",
        sa.Column("lease_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("wall_time_s", sa.Double(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.CheckConstraint("step >= 0", name=op.f("ck_curve_points_step")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_curve_points_lease_id_leases")),
        sa.PrimaryKeyConstraint("lease_id", "step", name=op.f("pk_curve_points")),
    )


def downgrade() -> None:
    op.drop_table("curve_points")
    op.drop_table("measurements")
    op.drop_index(
        "uq_leases_held",
        table_name="leases",
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_index(op.f("ix_leases_trial_id"), table_name="leases")
    op.drop_table("leases")
    op.drop_index(op.f("ix_trials_study_id_state_number"), table_name="trials")
    op.drop_table("trials")
    op.drop_table("study_attributes")
    op.drop_table("studies")
