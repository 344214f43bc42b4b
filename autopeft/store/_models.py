"""The tables. The schema's history is in `migrations/`; a test holds the two equal.

JSON is kept in text columns: PostgreSQL's `jsonb` would rewrite floats and SQLite's JSON affinity would turn them into
numbers of its own; text gives every bit back.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from autopeft.store._types import ExactText, UtcDateTime


class Base(DeclarativeBase):
    """Gives every constraint a name, so that later migrations can find it."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {str: ExactText(), datetime: UtcDateTime(), float: Double()}  # noqa: RUF012


class StudyRow(Base):
    """A study; `spec` is the JSON text of `StudySpec.to_dict`."""

    __tablename__ = "studies"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    spec: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class AttributeRow(Base):
    """A study's attribute; `value` is JSON text."""

    __tablename__ = "study_attributes"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class TrialRow(Base):
    """A trial with its draft and, if it FAILED, its failure. The unique identity is `TrialDraft.identity`."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        UniqueConstraint(
            "study_id", "role", "fingerprint", "train_examples", "epochs", "seed", name="uq_trials_identity"
        ),
        ForeignKeyConstraint(["study_id", "parent"], ["trials.study_id", "trials.number"]),
        Index(None, "study_id", "state", "number"),
        CheckConstraint("number >= 0", name="number"),
        CheckConstraint("attempts >= 0", name="attempts"),
        CheckConstraint("trainable_parameters >= 0", name="trainable_parameters"),
        CheckConstraint("train_examples >= 1 AND epochs >= 1", name="fidelity"),
        CheckConstraint("kind IN ('search', 'baseline', 'confirmation')", name="kind"),
        CheckConstraint("role = CASE WHEN kind = 'confirmation' THEN 'confirmation' ELSE 'trial' END", name="role"),
        CheckConstraint("state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'FAILED')", name="state"),
        CheckConstraint("(state = 'WAITING') = (started_at IS NULL)", name="started"),
        CheckConstraint("(state IN ('WAITING', 'RUNNING')) = (finished_at IS NULL)", name="finished"),
        CheckConstraint("state = 'WAITING' OR worker IS NOT NULL", name="worker"),
        CheckConstraint("(state = 'FAILED') = (failure_reason IS NOT NULL)", name="failure_reason"),
        CheckConstraint("(state = 'FAILED') = (failure_message IS NOT NULL)", name="failure_message"),
        CheckConstraint("state = 'FAILED' OR failure_traceback IS NULL", name="failure_traceback"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    role: Mapped[str] = mapped_column(String(16))
    fingerprint: Mapped[str] = mapped_column(String(64))
    configuration: Mapped[str] = mapped_column(Text)
    trainable_parameters: Mapped[int] = mapped_column(BigInteger)
    train_examples: Mapped[int] = mapped_column(BigInteger)
    epochs: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    params: Mapped[str | None] = mapped_column(Text)
    label: Mapped[str | None]
    parent: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    worker: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    notes: Mapped[str] = mapped_column(Text)
    failure_reason: Mapped[str | None]
    failure_message: Mapped[str | None]
    failure_traceback: Mapped[str | None]


class MeasurementRow(Base):
    """A measurement; a metric or cost that was not measured has no key in the JSON text.

    The rung is NULL at the end of the run.
    """

    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint(
            "trial_id", "split", "train_examples", "epochs", "seed", "rung_step", name="uq_measurements_identity"
        ),
        # NULLs are all different to a unique constraint; there is one measurement at a run's end.
        Index(
            "uq_measurements_end",
            "trial_id",
            "split",
            "train_examples",
            "epochs",
            "seed",
            unique=True,
            sqlite_where=text("rung_step IS NULL"),
            postgresql_where=text("rung_step IS NULL"),
        ),
        CheckConstraint("split IN ('search', 'report')", name="split"),
        CheckConstraint("train_examples >= 1 AND epochs >= 1", name="fidelity"),
        CheckConstraint("(rung_step IS NULL) = (rung_n_steps IS NULL)", name="rung"),
        CheckConstraint("rung_step >= 1 AND rung_step < rung_n_steps", name="rung_step"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    split: Mapped[str] = mapped_column(String(16))
    train_examples: Mapped[int] = mapped_column(BigInteger)
    epochs: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[str] = mapped_column(Text)
    costs: Mapped[str] = mapped_column(Text)
    environment: Mapped[str] = mapped_column(Text)
    curve: Mapped[str] = mapped_column(Text)
    predictions: Mapped[bytes | None] = mapped_column(LargeBinary)
    rung_step: Mapped[int | None] = mapped_column(BigInteger)
    rung_n_steps: Mapped[int | None] = mapped_column(BigInteger)
    rung_examples: Mapped[int | None] = mapped_column(BigInteger)


class LeaseRow(Base):
    """One claim of a trial, with its last heartbeat; the lease is held while `ended_at` is NULL."""

    __tablename__ = "leases"
    __table_args__ = (
        Index(None, "trial_id"),
        Index(
            "uq_leases_held",
            "trial_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        CheckConstraint("outcome IN ('finished', 'released', 'lost')", name="outcome"),
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended"),
        CheckConstraint("expires_at >= heartbeat_at", name="expiry"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    worker: Mapped[str]
    claimed_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(16))


class CurvePointRow(Base):
    """A point of the learning curve that a claim reported."""

    __tablename__ = "curve_points"
    __table_args__ = (CheckConstraint("step >= 0", name="step"),)

    lease_id: Mapped[int] = mapped_column(ForeignKey("leases.id"), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    epoch: Mapped[float]
    wall_time_s: Mapped[float]
    metrics: Mapped[str] = mapped_column(Text)
    n_examples: Mapped[int | None] = mapped_column(BigInteger)


class DriverRow(Base):
    """Who drives a study; nobody does if there is no row."""

    __tablename__ = "drivers"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("expires_at >= heartbeat_at", name="expiry"),
    )

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, autoincrement=False)
    holder: Mapped[str]
    executor: Mapped[str] = mapped_column(String(16))
    weight: Mapped[float]
    acquired_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    #: When `claim_next` last took a trial of the study, to the second.
    served_at: Mapped[datetime | None]


class WorkerRow(Base):
    """A worker as it said of itself; mappings and lists are JSON text."""

    __tablename__ = "workers"
    __table_args__ = (
        CheckConstraint("pid >= 1", name="pid"),
        CheckConstraint("state IN ('starting', 'idle', 'working', 'stopping')", name="state"),
        CheckConstraint("expires_at >= heartbeat_at", name="expiry"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(BigInteger)
    resources: Mapped[str] = mapped_column(Text)
    versions: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    study: Mapped[str | None]
    trials: Mapped[str] = mapped_column(Text)
    refusals: Mapped[str] = mapped_column(Text)
    announced_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class SubmissionRow(Base):
    """A submission; `settings` is JSON text, `service` who drives it or did last, `process` the driver."""

    __tablename__ = "submissions"
    __table_args__ = (
        UniqueConstraint("study"),
        Index(None, "state"),
        CheckConstraint("state IN ('QUEUED', 'RUNNING', 'STOPPING', 'STOPPED', 'COMPLETE', 'FAILED')", name="state"),
        CheckConstraint("state NOT IN ('RUNNING', 'STOPPING') OR service IS NOT NULL", name="service"),
        CheckConstraint("attempts >= 0", name="attempts"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str]
    owner: Mapped[str]
    settings: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    service: Mapped[str | None]
    process: Mapped[str | None]
    message: Mapped[str | None]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
