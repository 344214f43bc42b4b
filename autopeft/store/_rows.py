"""Rows to domain values, and domain values to rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, Row, Select, any_, bindparam, func, select

from autopeft.store._base import StudySummary
from autopeft.store._codec import (
    decode_configuration,
    decode_curve,
    decode_predictions,
    decode_spec,
    encode_curve,
    encode_predictions,
    to_json,
)
from autopeft.store._json_text import JsonText, read_object, shared_text
from autopeft.store._models import AttributeRow, CurvePointRow, LeaseRow, MeasurementRow, StudyRow, TrialRow
from autopeft.study import CurvePoint, Failure, Fidelity, Measurement, Rung, Trial, TrialDraft, TrialKind, TrialState

#: Numbers in one IN list; SQLite's oldest limit on variables is 999.
_CHUNK = 512

_Statement = Select[*tuple[Any, ...]]
#: What `make_trial` needs of a trial's own row.
TRIAL_ROW_COLUMNS = [item for item in TrialRow.__table__.columns if item.name != "study_id"]
_MEASUREMENT_COLUMNS = [item for item in MeasurementRow.__table__.columns if item.name != "id"]


def read_attributes(connection: Connection, study_id: int) -> dict[str, Any]:
    """A study's attributes, by key."""
    statement = select(AttributeRow.key, AttributeRow.value).where(AttributeRow.study_id == study_id)
    return {key: json.loads(text) for key, text in connection.execute(statement.order_by(AttributeRow.key))}


def read_trials(
    connection: Connection, study_id: int, numbers: Collection[int] | None = None, *, compact: bool = False
) -> tuple[Trial, ...]:
    """A study's trials by number.

    Args:
        connection: Connection inside a transaction, so that the statements see one moment.
        study_id: Study to read.
        numbers: The only trials wanted; None for all.
        compact: See `make_trial`.
    """
    chunks = [None] if numbers is None else in_chunks(numbers)
    return tuple(trial for chunk in chunks for trial in _read_chunk(connection, study_id, chunk, compact=compact))


def _read_chunk(connection: Connection, study_id: int, numbers: list[int] | None, *, compact: bool) -> Iterator[Trial]:
    trials = _of_study(connection, select(*TRIAL_ROW_COLUMNS), study_id, numbers).order_by(TrialRow.number)
    by_trial = _read_measurements(
        connection,
        _of_study(
            connection,
            select(*_MEASUREMENT_COLUMNS).join(TrialRow, TrialRow.id == MeasurementRow.trial_id),
            study_id,
            numbers,
        ),
        compact=compact,
    )
    curves = read_curves(connection, study_id, numbers)
    for row in connection.execute(trials):
        yield make_trial(row, tuple(by_trial.get(row.id, ())), tuple(curves.get(row.id, ())), compact=compact)


def among(connection: Connection, column: Any, numbers: Collection[int]) -> ColumnElement[bool]:
    """Whether a column has one of some numbers: one parameter where the database knows lists, else many."""
    if connection.dialect.name == "sqlite":
        return column.in_(numbers)  # type: ignore[no-any-return]
    return column == any_(bindparam(None, list(numbers), type_=ARRAY(column.type)))  # type: ignore[no-any-return]


def in_chunks(numbers: Collection[int]) -> Iterator[list[int]]:
    """Numbers in ascending order, in lists for SQL statements.

    The last number of a list is repeated until the length is a power of two: statements of few lengths are prepared
    once, and each new one costs more than it takes to run.
    """
    ordered = sorted(set(numbers))
    for start in range(0, len(ordered), _CHUNK):
        chunk = ordered[start : start + _CHUNK]
        yield chunk + [chunk[-1]] * ((1 << (len(chunk) - 1).bit_length()) - len(chunk))


def read_measurements(
    connection: Connection, trial_ids: Collection[int], *, compact: bool = False
) -> dict[int, list[Measurement]]:
    """Measurements of some trials, by the trials' keys."""
    found: dict[int, list[Measurement]] = {}
    for chunk in in_chunks(trial_ids):
        statement = select(*_MEASUREMENT_COLUMNS).where(among(connection, MeasurementRow.trial_id, chunk))
        found |= _read_measurements(connection, statement, compact=compact)
    return found


def read_summaries(connection: Connection) -> list[StudySummary]:
    """Summaries of all studies, oldest first."""
    trials = select(
        TrialRow.study_id,
        TrialRow.state,
        func.count(),
        func.max(TrialRow.created_at),
        func.max(TrialRow.started_at),
        func.max(TrialRow.finished_at),
    ).group_by(TrialRow.study_id, TrialRow.state)
    heartbeats = (
        select(TrialRow.study_id, func.max(LeaseRow.heartbeat_at))
        .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
        .group_by(TrialRow.study_id)
    )
    counts: dict[int, dict[TrialState, int]] = {}
    moments: dict[int, list[datetime]] = {}
    for study_id, state, count, *times in connection.execute(trials):
        counts.setdefault(study_id, {})[TrialState(state)] = count
        moments.setdefault(study_id, []).extend(time for time in times if time is not None)
    for study_id, time in connection.execute(heartbeats):
        moments[study_id].append(time)
    studies = select(StudyRow.id, StudyRow.spec, StudyRow.created_at).order_by(StudyRow.id)
    return [
        StudySummary(
            spec=decode_spec(row.spec),
            n_trials={state: counts.get(row.id, {}).get(state, 0) for state in TrialState},
            created_at=row.created_at,
            last_activity_at=max(moments.get(row.id, ()), default=row.created_at),
        )
        for row in connection.execute(studies)
    ]


def _of_study(
    connection: Connection, statement: _Statement, study_id: int, numbers: Collection[int] | None
) -> _Statement:
    statement = statement.where(TrialRow.study_id == study_id)
    return statement if numbers is None else statement.where(among(connection, TrialRow.number, numbers))


def _read_measurements(
    connection: Connection, statement: _Statement, *, compact: bool = False
) -> dict[int, list[Measurement]]:
    by_trial: dict[int, list[Measurement]] = {}
    for row in connection.execute(statement.order_by(MeasurementRow.id)):
        by_trial.setdefault(row.trial_id, []).append(_measurement(row, compact=compact))
    return by_trial


def read_curves(connection: Connection, study_id: int, numbers: Collection[int] | None) -> dict[int, list[CurvePoint]]:
    """Points that the last claims of some trials reported (None for all), by the trials' keys."""
    latest = (
        _of_study(connection, select(func.max(LeaseRow.id).label("id"), LeaseRow.trial_id), study_id, numbers)
        .join(TrialRow, TrialRow.id == LeaseRow.trial_id)
        .group_by(LeaseRow.trial_id)
        .subquery()
    )
    points = (
        select(
            latest.c.trial_id,
            CurvePointRow.step,
            CurvePointRow.epoch,
            CurvePointRow.wall_time_s,
            CurvePointRow.metrics,
            CurvePointRow.n_examples,
        )
        .join(latest, latest.c.id == CurvePointRow.lease_id)
        .order_by(CurvePointRow.lease_id, CurvePointRow.step)
    )
    curves: dict[int, list[CurvePoint]] = {}
    for trial_id, step, epoch, wall_time_s, metrics, n_examples in connection.execute(points):
        curves.setdefault(trial_id, []).append(make_point(step, epoch, wall_time_s, metrics, n_examples))
    return curves


def _measurement(row: Row[Any], *, compact: bool) -> Measurement:
    rung = None
    if row.rung_step is not None:
        rung = Rung(step=row.rung_step, n_steps=row.rung_n_steps, n_examples=row.rung_examples)
    return Measurement(
        split=row.split,
        fidelity=Fidelity(train_examples=row.train_examples, epochs=row.epochs),
        seed=row.seed,
        metrics=read_object(row.metrics),
        costs=read_object(row.costs),
        environment=shared_text(row.environment) if compact else json.loads(row.environment),
        curve=decode_curve(row.curve),
        predictions=decode_predictions(row.predictions),
        rung=rung,
    )


def make_point(step: int, epoch: float, wall_time_s: float, metrics: str, n_examples: int | None) -> CurvePoint:
    """A point of a learning curve from its row."""
    return CurvePoint(
        step=step, epoch=epoch, wall_time_s=wall_time_s, metrics=read_object(metrics), n_examples=n_examples
    )


def make_trial(
    row: Row[Any],
    measurements: tuple[Measurement, ...] = (),
    curve: tuple[CurvePoint, ...] = (),
    *,
    compact: bool = False,
) -> Trial:
    """A trial from its row and what belongs to it.

    Args:
        row: The trial's own row.
        measurements: Of the trial.
        curve: Of its last claim.
        compact: Whether what is rarely looked at stays text, for somebody who keeps very many trials.
    """
    draft = TrialDraft(
        kind=TrialKind(row.kind),
        configuration=decode_configuration(row.configuration),
        trainable_parameters=row.trainable_parameters,
        fidelity=Fidelity(train_examples=row.train_examples, epochs=row.epochs),
        seed=row.seed,
        params=None if row.params is None else read_object(row.params),
        label=row.label,
        parent=row.parent,
    )
    return Trial(
        number=row.number,
        draft=draft,
        measurements=measurements,
        curve=curve,
        created_at=row.created_at,
        **trial_changes(row, compact=compact),
    )


def trial_changes(row: Row[Any], *, compact: bool = False) -> dict[str, Any]:
    """What of a trial's own row changes after it was added."""
    failure = None
    if row.failure_reason is not None:
        failure = Failure(reason=row.failure_reason, message=row.failure_message, traceback=row.failure_traceback)
    return {
        "state": TrialState(row.state),
        "failure": failure,
        "attempts": row.attempts,
        "worker": row.worker,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "notes": JsonText(row.notes) if compact else json.loads(row.notes),
    }


def failure_values(failure: Failure) -> dict[str, Any]:
    """Columns of a trial that FAILED."""
    return {
        "state": TrialState.FAILED.value,
        "failure_reason": failure.reason,
        "failure_message": failure.message,
        "failure_traceback": failure.traceback,
    }


def measurement_values(measurement: Measurement) -> dict[str, Any]:
    """Columns of a measurement, its trial apart."""
    rung = measurement.rung
    return {
        "split": measurement.split,
        "train_examples": int(measurement.fidelity.train_examples),
        "epochs": int(measurement.fidelity.epochs),
        "seed": int(measurement.seed),
        "metrics": to_json(dict(measurement.metrics), "metrics"),
        "costs": to_json(dict(measurement.costs), "costs"),
        "environment": to_json(dict(measurement.environment), "environment"),
        "curve": encode_curve(measurement.curve),
        "predictions": encode_predictions(measurement.predictions),
        "rung_step": None if rung is None else int(rung.step),
        "rung_n_steps": None if rung is None else int(rung.n_steps),
        "rung_examples": None if rung is None or rung.n_examples is None else int(rung.n_examples),
    }


def stored_measurement(measurement: Measurement, values: dict[str, Any]) -> Measurement:
    """A measurement as it would be read from the columns that `measurement_values` made of it."""
    return replace(
        measurement,
        metrics=read_object(values["metrics"]),
        costs=read_object(values["costs"]),
        environment=json.loads(values["environment"]),
        curve=decode_curve(values["curve"]),
        predictions=decode_predictions(values["predictions"]),
    )
