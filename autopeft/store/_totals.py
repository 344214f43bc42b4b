"""Numbers over all studies of a database, for monitoring: cheap enough to be asked for every few seconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from autopeft.store._columns import seconds_between
from autopeft.store._models import StudyRow, TrialRow
from autopeft.store._sql_core import SqlCore
from autopeft.study import TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTrial:
    """A trial that has ended, as far as monitoring asks.

    Args:
        id: Its key in the database.
        study: Name of its study.
        state: How it ended.
        duration_s: Seconds between its last start and its end.
        finished_at: When it ended, by the store's clock.
    """

    id: int
    study: str
    state: TrialState
    duration_s: float
    finished_at: datetime


class StoreTotals(SqlCore):
    """Counts and durations over all studies; every method is one transaction. See `SqlStore`."""

    def now(self) -> datetime:
        """The time by the store's clock."""
        with self._reading() as connection:
            return self._now(connection)

    def trial_counts(self) -> dict[str, dict[TrialState, int]]:
        """Number of trials by study and state; a state without trials has no key."""
        statement = (
            select(StudyRow.name, TrialRow.state, func.count())
            .join(TrialRow, TrialRow.study_id == StudyRow.id)
            .group_by(StudyRow.name, TrialRow.state)
        )
        found: dict[str, dict[TrialState, int]] = {}
        with self._reading() as connection:
            for study, state, count in connection.execute(statement):
                found.setdefault(study, {})[TrialState(state)] = count
        return found

    def ended_since(self, moment: datetime) -> list[EndedTrial]:
        """Trials that ended at a moment or later, by the time they ended."""
        duration = seconds_between(TrialRow.started_at, TrialRow.finished_at, is_sqlite=self._is_sqlite)
        statement = (
            select(TrialRow.id, StudyRow.name, TrialRow.state, duration, TrialRow.finished_at)
            .join(StudyRow, StudyRow.id == TrialRow.study_id)
            .where(TrialRow.finished_at >= moment)
            .order_by(TrialRow.finished_at, TrialRow.id)
        )
        with self._reading() as connection:
            return [
                EndedTrial(
                    id=row[0],
                    study=row[1],
                    state=TrialState(row[2]),
                    duration_s=max(float(row[3] or 0.0), 0.0),
                    finished_at=row[4],
                )
                for row in connection.execute(statement)
            ]
