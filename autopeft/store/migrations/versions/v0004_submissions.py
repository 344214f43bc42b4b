"""Searches that were handed to a service."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("service", sa.Text(), nullable=True),
        sa.Column("process", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'RUNNING', 'STOPPING', 'STOPPED', 'COMPLETE', 'FAILED')",
            name=op.f("ck_submissions_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('RUNNING', 'STOPPING') OR service IS NOT NULL", name=op.f("ck_submissions_service")
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_submissions_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("study", name=op.f("uq_submissions_study")),
    )
    op.create_index(op.f("ix_submissions_state"), "submissions", ["state"])


def downgrade() -> None:
    op.drop_table("submissions")
