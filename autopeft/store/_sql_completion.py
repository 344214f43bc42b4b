"""Ending trials in a database, and going on with the next ones; the contract is `TrialStore`'s."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from autopeft.exceptions import StoreError, TrialConflictError
from autopeft.store import _messages as messages
from autopeft.store._claims import finish_and_take
from autopeft.store._codec import check_completion
from autopeft.store._models import LeaseRow, MeasurementRow, TrialRow
from autopeft.store._rows import (
    make_point,
    make_trial,
    measurement_values,
    read_measurements,
    read_trials,
    stored_measurement,
)
from autopeft.store._sql_cluster import ClusterTables
from autopeft.store._statements import (
    end_lease,
    end_trial,
    finish,
    held,
    measurement_parameters,
    named,
    points_of_lease,
)
from autopeft.study import Measurement, Trial, TrialKind, TrialState


class CompletionTables(ClusterTables):
    """What a worker does at the end of a trial."""

    def load_trial(self, study_name: str, number: int) -> Trial:
        with self._reading() as connection:
            return self._load_trial(connection, study_name, number)

    def complete_trial(
        self,
        study_name: str,
        number: int,
        worker: str,
        measurements: Sequence[Measurement],
        state: TrialState = TrialState.COMPLETE,
    ) -> Trial:
        check_completion(state, measurements)
        rows = [measurement_values(item) for item in measurements]
        kept = tuple(stored_measurement(item, row) for item, row in zip(measurements, rows, strict=True))
        parameters = {**named(study_name, number, worker), "p_state": state.value, **self._times()}
        end = self._end_on_sqlite if self._is_sqlite else self._end_on_server
        ended = end(parameters, rows, state, kept)
        if ended is None:
            raise self._not_held(study_name, number, worker)
        return ended

    def _end_on_sqlite(
        self,
        parameters: dict[str, Any],
        rows: list[dict[str, Any]],
        state: TrialState,
        kept: tuple[Measurement, ...],
    ) -> Trial | None:
        """Write measurements and the end of a trial; None if the worker does not hold it."""
        with self._single() as connection:
            mine = connection.execute(held(), parameters).first()
            if mine is None:
                return None
            earlier = read_measurements(connection, [mine.id])[mine.id] if mine.n_measured else []
            if earlier:
                check_completion(state, kept, earlier)
            if rows:
                connection.execute(insert(MeasurementRow), [{"trial_id": mine.id, **row} for row in rows])
            ending = {**parameters, "p_lease": mine.lease_id, "p_trial": mine.id, "p_outcome": "finished"}
            connection.execute(end_lease(self._has_server_clock), ending)
            row = connection.execute(end_trial(self._has_server_clock), ending).one()
            points = connection.execute(points_of_lease(), {"p_lease": mine.lease_id}) if mine.n_points else ()
            return make_trial(row, (*earlier, *kept), tuple(make_point(*item) for item in points))

    def _end_on_server(
        self,
        parameters: dict[str, Any],
        rows: list[dict[str, Any]],
        state: TrialState,
        kept: tuple[Measurement, ...],
    ) -> Trial | None:
        """As `_end_on_sqlite`, in one statement."""
        found = self._finished(finish(self._has_server_clock, len(rows)), parameters, rows, state, kept)
        if not found:
            return None
        (row,) = found
        if not row.n_measured and not row.n_points:
            return make_trial(row, kept)
        with self._glancing() as connection:
            earlier = read_measurements(connection, [row.id])[row.id][: row.n_measured] if row.n_measured else []
            points = connection.execute(points_of_lease(), {"p_lease": row.lease_id}) if row.n_points else ()
            return make_trial(row, (*earlier, *kept), tuple(make_point(*item) for item in points))

    def _finished(
        self,
        statement: Any,
        parameters: dict[str, Any],
        rows: list[dict[str, Any]],
        state: TrialState,
        measurements: Sequence[Measurement],
    ) -> Sequence[Any]:
        """Run a statement that ends a trial; its rows."""
        try:
            return self._run(statement, {**parameters, **measurement_parameters(rows)})[0]
        except StoreError as error:
            if isinstance(error.__cause__, IntegrityError):
                # What is said of the run's ends that are there already, or else that it cannot be stored.
                known = self.load_trial(parameters["p_study"], parameters["p_number"]).measurements
                check_completion(state, measurements, known)
            raise

    def complete_and_claim(
        self,
        study_name: str,
        number: int,
        worker: str,
        measurements: Sequence[Measurement],
        *,
        lease_s: float,
        studies: Collection[str] | None = None,
        kinds: Collection[TrialKind] | None = None,
        prefer: Collection[str] | None = None,
        refuse: Collection[str] = (),
        limit: int = 1,
    ) -> list[tuple[str, Trial]]:
        wanted = {"studies": studies, "kinds": kinds, "prefer": prefer, "refuse": refuse, "limit": limit}
        if self._is_sqlite:
            self._check_claim(worker, lease_s, studies, limit)
            self.complete_trial(study_name, number, worker, measurements)
            return self.claim_next(worker, lease_s=lease_s, **wanted)  # type: ignore[arg-type]
        parameters = self._turn_parameters(worker, lease_s, **wanted)  # type: ignore[arg-type]
        check_completion(TrialState.COMPLETE, measurements)
        rows = [measurement_values(item) for item in measurements]
        parameters |= {**named(study_name, number, worker), "p_state": TrialState.COMPLETE.value}
        choice = (kinds is not None, studies is not None, limit > 1)
        found = self._finished(
            finish_and_take(self._has_server_clock, len(rows), *choice),
            parameters,
            rows,
            TrialState.COMPLETE,
            measurements,
        )
        if not found:
            raise self._not_held(study_name, number, worker)
        if found[0].study_name is None:
            return []
        taken = [row for row in found if row.id is not None]
        if taken:
            return [(taken[0].study_name, trial) for trial in self._made(taken)]
        # Others were faster, and there may be more.
        return self.claim_next(worker, lease_s=lease_s, **wanted)  # type: ignore[arg-type]

    def _load_trial(self, connection: Connection, study_name: str, number: int) -> Trial:
        study_id = self._study_id(connection, study_name)
        found = read_trials(connection, study_id, numbers=[number])
        if not found:
            raise messages.trial_not_found(study_name, number, self._n_trials(connection, study_id))
        return found[0]

    def _not_held(self, study_name: str, number: int, worker: str) -> TrialConflictError:
        """Why a worker does not hold a trial.

        Raises:
            NotFoundError: If there is no such study or trial.
        """
        with self._reading() as connection:
            study_id = self._study_id(connection, study_name)
            statement = (
                select(TrialRow.state, LeaseRow.worker)
                .outerjoin(LeaseRow, (LeaseRow.trial_id == TrialRow.id) & LeaseRow.ended_at.is_(None))
                .where(TrialRow.study_id == study_id, TrialRow.number == number)
            )
            found = connection.execute(statement).first()
            if found is None:
                raise messages.trial_not_found(study_name, number, self._n_trials(connection, study_id))
            return messages.not_held(study_name, number, worker, TrialState(found.state), found.worker)
