"""Studies in numbers: what lists and the question whether anything changed need of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from autopeft.store._columns import seconds_between
from autopeft.store._models import AttributeRow, CurvePointRow, LeaseRow, StudyRow, TrialRow
from autopeft.store._readable import readable_spec
from autopeft.study import StudySpec, TrialState

_Statement = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOverview:
    """A study in numbers, without its trials.

    Args:
        id: Its key in this database.
        spec: What is searched.
        n_trials: Trials in each state; every state is present.
        created_at: When it was created.
        started_at: When its first trial was claimed; None if none was.
        last_activity_at: Last time that a trial was added, claimed, kept alive or finished; creation if there is none.
        time_spent_s: Time that workers spent on finished trials, added up, in seconds.
        n_points: Points of learning curves that the trials at work have reported so far.
        token: Changes whenever a trial or an attribute of the study does; not with `n_points`.
    """

    id: int
    spec: StudySpec
    n_trials: Mapping[TrialState, int]
    created_at: datetime
    started_at: datetime | None
    last_activity_at: datetime
    time_spent_s: float
    n_points: int
    token: str

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def n_trials_total(self) -> int:
        return sum(self.n_trials.values())


def read_overviews(connection: Connection, study_id: int | None = None, *, is_sqlite: bool) -> list[StudyOverview]:
    """Studies in numbers, oldest first.

    Args:
        connection: Connection inside a transaction, so that the statements see one moment.
        study_id: The only study wanted; None for all.
        is_sqlite: Whether the database is SQLite.
    """

    def only(statement: _Statement, column: Any) -> _Statement:
        return statement if study_id is None else statement.where(column == study_id)

    duration = seconds_between(TrialRow.started_at, TrialRow.finished_at, is_sqlite=is_sqlite)
    trials = select(
        TrialRow.study_id,
        TrialRow.state,
        func.count(),
        func.sum(duration),
        func.sum(TrialRow.attempts),
        func.min(TrialRow.started_at),
        func.max(TrialRow.created_at),
        func.max(TrialRow.started_at),
        func.max(TrialRow.finished_at),
    ).group_by(TrialRow.study_id, TrialRow.state)
    held = (
        select(TrialRow.study_id, func.max(LeaseRow.heartbeat_at))
        .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
        .where(LeaseRow.ended_at.is_(None))
        .group_by(TrialRow.study_id)
    )
    points = (
        select(TrialRow.study_id, func.count())
        .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
        .join(CurvePointRow, CurvePointRow.lease_id == LeaseRow.id)
        .where(LeaseRow.ended_at.is_(None))
        .group_by(TrialRow.study_id)
    )
    attributes = select(AttributeRow.study_id, func.count(), func.sum(func.length(AttributeRow.value))).group_by(
        AttributeRow.study_id
    )
    groups: dict[int, list[Any]] = {}
    for row in connection.execute(only(trials, TrialRow.study_id).order_by(TrialRow.state)):
        groups.setdefault(row[0], []).append(tuple(row)[1:])
    heartbeats = {row[0]: row[1] for row in connection.execute(only(held, TrialRow.study_id))}
    reported = {row[0]: row[1] for row in connection.execute(only(points, TrialRow.study_id))}
    facts = {row[0]: tuple(row)[1:] for row in connection.execute(only(attributes, AttributeRow.study_id))}
    studies = only(select(StudyRow.id, StudyRow.spec, StudyRow.created_at), StudyRow.id).order_by(StudyRow.id)
    return [
        _overview(row, groups.get(row.id, []), heartbeats.get(row.id), reported.get(row.id, 0), facts.get(row.id))
        for row in connection.execute(studies)
    ]


def _overview(
    row: Any, groups: list[tuple[Any, ...]], heartbeat: datetime | None, n_points: int, facts: object
) -> StudyOverview:
    counts = {TrialState(group[0]): group[1] for group in groups}
    times = [time for group in groups for time in group[5:] if time is not None]
    # Without the sums of times, whose last digit depends on the order in which the database reads rows.
    counted = [group[:2] + group[3:] for group in groups]
    digest = hashlib.sha256(repr((row.id, row.spec, counted, facts)).encode()).hexdigest()[:16]
    return StudyOverview(
        id=row.id,
        spec=readable_spec(row.spec),
        n_trials={state: counts.get(state, 0) for state in TrialState},
        created_at=row.created_at,
        started_at=min((group[4] for group in groups if group[4] is not None), default=None),
        last_activity_at=max([*times, *([] if heartbeat is None else [heartbeat])], default=row.created_at),
        time_spent_s=float(sum(group[2] or 0.0 for group in groups)),
        n_points=n_points,
        token=digest,
    )
