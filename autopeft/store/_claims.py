"""Taking WAITING trials: which ones, and whose turn it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, insert, select, tuple_, update

from autopeft.store._cluster import PATIENCE_S
from autopeft.store._models import LeaseRow, MeasurementRow, TrialRow
from autopeft.store._rows import TRIAL_ROW_COLUMNS, make_trial, read_measurements
from autopeft.study import Trial, TrialKind, TrialState

#: What the trials of one batch have in common.
_BATCH_COLUMNS = (TrialRow.kind, TrialRow.train_examples, TrialRow.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A study that has WAITING trials, as far as it decides whose turn it is.

    Args:
        name: The study.
        n_running: Its RUNNING trials.
        weight: Its driver's weight.
        idle_since: When it last got a worker, or when its driver came.
    """

    name: str
    n_running: int
    weight: float
    idle_since: datetime


def by_turn(turns: Collection[Turn], *, prefer: Collection[str], now: datetime) -> list[Turn]:
    """Sort studies by whose turn it is; the contract is `ClusterStore.claim_next`'s."""

    def key(turn: Turn) -> tuple[float, bool, bool, datetime, str]:
        is_patient = (now - turn.idle_since).total_seconds() < PATIENCE_S
        # Among the impatient ones the worker's preference does not count.
        is_unprepared = is_patient and turn.name not in prefer
        return (turn.n_running / turn.weight, is_patient, is_unprepared, turn.idle_since, turn.name)

    return sorted(turns, key=key)


def claim_waiting(
    connection: Connection,
    study_id: int,
    worker: str,
    *,
    now: datetime,
    lease_s: float,
    kinds: Collection[TrialKind] | None = None,
    numbers: Collection[int] | None = None,
    limit: int = 1,
) -> list[Trial]:
    """Take the WAITING trials with the lowest numbers; several have the kind and fidelity of the first.

    Rows that another transaction is taking at this moment are passed over.
    """
    waiting = select(TrialRow.id).where(TrialRow.study_id == study_id, TrialRow.state == TrialState.WAITING.value)
    if kinds is not None:
        waiting = waiting.where(TrialRow.kind.in_([kind.value for kind in kinds]))
    if numbers is not None:
        waiting = waiting.where(TrialRow.number.in_([int(item) for item in numbers]))
    waiting = waiting.order_by(TrialRow.number)
    if limit > 1:
        first = waiting.with_only_columns(*_BATCH_COLUMNS).limit(1)
        first_row = first.with_for_update(skip_locked=True, key_share=True).cte("first")
        waiting = waiting.where(tuple_(*_BATCH_COLUMNS).in_(select(first_row)))
    # In a CTE, so that no plan can run it twice.
    chosen = waiting.limit(limit).with_for_update(skip_locked=True, key_share=True).cte("chosen")
    n_measured = (
        select(func.count())
        .select_from(MeasurementRow)
        .where(MeasurementRow.trial_id == TrialRow.id)
        .correlate(TrialRow)
        .scalar_subquery()
    )
    rows = connection.execute(
        update(TrialRow)
        .where(TrialRow.id == chosen.c.id)
        .values(state=TrialState.RUNNING.value, attempts=TrialRow.attempts + 1, worker=worker, started_at=now)
        .returning(*TRIAL_ROW_COLUMNS, n_measured.label("n_measured"))
    ).all()
    if not rows:
        return []
    lease = {"worker": worker, "claimed_at": now, "heartbeat_at": now, "expires_at": now + timedelta(seconds=lease_s)}
    connection.execute(insert(LeaseRow), [{"trial_id": row.id, **lease} for row in rows])
    # Only a trial that was stopped early and goes on has any.
    measured: Sequence[int] = [row.id for row in rows if row.n_measured]
    measurements = read_measurements(connection, measured) if measured else {}
    return [
        make_trial(row, tuple(measurements.get(row.id, ()))) for row in sorted(rows, key=lambda row: int(row.number))
    ]
