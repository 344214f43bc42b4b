"""Drivers, workers and fair claims in a database; the contract is `ClusterStore`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from autopeft.store import _messages as messages
from autopeft.store._claims import (
    SERVED_GRAIN_S,
    asking,
    claim_on_sqlite,
    claim_parameters,
    running,
    take_at_once,
    take_by_turn,
)
from autopeft.store._cluster import DriverLease, WorkerFacts, WorkerRecord
from autopeft.store._cluster_rows import read_driver, read_drivers, read_workers, worker_values
from autopeft.store._models import DriverRow, WorkerRow
from autopeft.store._rows import make_trial, read_measurements
from autopeft.store._sql_core import SqlCore
from autopeft.store._statements import announce, beat, keep_driver, named
from autopeft.store._turns import Turn, by_turn
from autopeft.study import Measurement, Trial, TrialKind

#: Workers that were not heard of for so long are forgotten, in seconds.
_FORGET_S = 86_400.0


class ClusterTables(SqlCore):
    """The tables `drivers` and `workers`."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._known_studies: set[str] = set()

    def acquire_driver(
        self,
        study_name: str,
        holder: str,
        *,
        executor: str,
        lease_s: float,
        weight: float = 1.0,
        dead_holders: Collection[str] = (),
    ) -> DriverLease:
        messages.check_driver(holder, lease_s, executor, weight)
        with self._writing() as connection:
            # The study's row is the lock: there may be no driver's row yet.
            study_id = self._study_id(connection, study_name, lock=True)
            now = self._now(connection)
            held = read_driver(connection, study_id, now)
            is_own = held is not None and held.holder == holder
            if held is not None and not is_own and not held.is_expired and held.holder not in dead_holders:
                return held
            values: dict[str, Any] = {
                "holder": holder,
                "executor": executor,
                "weight": float(weight),
                "acquired_at": held.acquired_at if held is not None and is_own else now,
                "heartbeat_at": now,
                "expires_at": now + timedelta(seconds=lease_s),
            }
            if held is None:
                connection.execute(insert(DriverRow).values(study_id=study_id, **values))
            else:
                connection.execute(update(DriverRow).where(DriverRow.study_id == study_id).values(**values))
            return DriverLease(study=study_name, read_at=now, **values)

    def keep_driver(self, study_name: str, holder: str, lease_s: float) -> None:
        messages.check_claim(holder, lease_s)
        parameters = {"p_study": study_name, "p_holder": holder, **self._times(lease_s)}
        _, n_kept = self._run(keep_driver(self._has_server_clock), parameters)
        if n_kept == 0:
            with self._reading() as connection:
                study_id = self._study_id(connection, study_name)
                other = connection.execute(select(DriverRow.holder).where(DriverRow.study_id == study_id)).scalar()
            raise messages.not_driver(study_name, holder, other)

    def release_driver(self, study_name: str, holder: str) -> bool:
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name)
            where = (DriverRow.study_id == study_id, DriverRow.holder == holder)
            return connection.execute(delete(DriverRow).where(*where)).rowcount > 0

    def driver(self, study_name: str) -> DriverLease | None:
        with self._reading() as connection:
            study_id = self._study_id(connection, study_name)
            return read_driver(connection, study_id, self._now(connection))

    def drivers(self) -> list[DriverLease]:
        with self._reading() as connection:
            return read_drivers(connection, self._now(connection))

    def announce_worker(self, worker: WorkerFacts, lease_s: float) -> frozenset[int]:
        messages.check_claim(worker.id, lease_s)
        times = self._times(lease_s)
        parameters = {**{f"p_{name}": value for name, value in worker_values(worker).items()}, **times}
        numbers = {int(item) for item in worker.trials}
        is_whole = bool(numbers) and not self._is_sqlite
        if is_whole:
            parameters["p_numbers"] = sorted(numbers)
        statement = announce(self._has_server_clock, self._is_sqlite, is_whole)
        ((said,), _) = self._run(statement, parameters)
        if said.is_new:
            with self._writing() as connection:
                old = self._now(connection) - timedelta(seconds=_FORGET_S)
                connection.execute(delete(WorkerRow).where(WorkerRow.expires_at < old))
        if is_whole and said.n_kept == len(numbers):
            return frozenset()
        return frozenset(item for item in numbers if not self._keep(worker.study or "", item, worker.id, times))

    def _keep(self, study_name: str, number: int, worker: str, times: Mapping[str, Any]) -> bool:
        """Extend a lease; whether the worker holds it."""
        parameters = {**named(study_name, number, worker), **times}
        return self._run(beat(self._has_server_clock, self._is_sqlite), parameters)[1] > 0

    def retire_worker(self, worker_id: str) -> bool:
        with self._writing() as connection:
            return connection.execute(delete(WorkerRow).where(WorkerRow.id == worker_id)).rowcount > 0

    def workers(self) -> list[WorkerRecord]:
        with self._reading() as connection:
            return read_workers(connection, self._now(connection))

    def claim_next(
        self,
        worker: str,
        *,
        lease_s: float,
        studies: Collection[str] | None = None,
        kinds: Collection[TrialKind] | None = None,
        prefer: Collection[str] | None = None,
        refuse: Collection[str] = (),
        limit: int = 1,
    ) -> list[tuple[str, Trial]]:
        if self._is_sqlite:
            self._check_claim(worker, lease_s, studies, limit)
            return self._claim_on_sqlite(worker, lease_s, studies, kinds, prefer or (), refuse, limit)
        parameters = self._turn_parameters(
            worker, lease_s, studies=studies, kinds=kinds, prefer=prefer, refuse=refuse, limit=limit
        )
        statement = take_by_turn(self._has_server_clock, kinds is not None, studies is not None, limit > 1)
        while True:
            rows, _ = self._run(statement, parameters)
            taken = [row for row in rows if row.id is not None]
            # If others were faster, there may be more, or another study's turn.
            if taken or not rows:
                return [(rows[0].study_name, trial) for trial in self._made(taken)] if taken else []

    def _check_claim(self, worker: str, lease_s: float, studies: Collection[str] | None, limit: int) -> None:
        messages.check_claim(worker, lease_s)
        messages.check_limit(limit)
        if studies is not None:
            self._require_studies(studies)

    def _turn_parameters(
        self,
        worker: str,
        lease_s: float,
        *,
        studies: Collection[str] | None,
        kinds: Collection[TrialKind] | None,
        prefer: Collection[str] | None,
        refuse: Collection[str],
        limit: int,
    ) -> dict[str, Any]:
        """Parameters of `take_by_turn`, checked."""
        self._check_claim(worker, lease_s, studies, limit)
        parameters = claim_parameters(self._times(lease_s), worker, limit=limit, kinds=kinds)
        parameters |= {"p_prefer": list(prefer or ()), "p_refused": list(refuse)}
        if studies is not None:
            parameters["p_studies"] = list(studies)
        return parameters

    def _claim(
        self,
        study_name: str,
        worker: str,
        times: Mapping[str, Any],
        *,
        kinds: Collection[TrialKind] | None,
        numbers: Collection[int] | None = None,
        limit: int = 1,
        notes_service: bool = False,
    ) -> list[Trial]:
        """Take WAITING trials of one study; see `claim_parameters` and `claim_on_sqlite`."""
        parameters = claim_parameters(times, worker, limit=limit, kinds=kinds, numbers=numbers)
        parameters["p_study"] = study_name
        has_kinds, has_numbers = kinds is not None, numbers is not None
        if self._is_sqlite:
            with self._single() as connection:
                rows = claim_on_sqlite(
                    connection, parameters, has_kinds=has_kinds, has_numbers=has_numbers, notes_service=notes_service
                )
        else:
            rows, _ = self._run(take_at_once(self._has_server_clock, has_kinds, has_numbers, limit > 1), parameters)
        return self._made(rows)

    def _made(self, rows: Sequence[Any]) -> list[Trial]:
        """Trials that were taken, from their rows."""
        measurements: dict[int, list[Measurement]] = {}
        # Only a trial that was stopped early and goes on has any.
        if measured := [row.id for row in rows if row.n_measured]:
            with self._glancing() as connection:
                measurements = read_measurements(connection, measured)
        ordered = sorted(rows, key=lambda row: int(row.number))
        return [make_trial(row, tuple(measurements.get(row.id, ()))) for row in ordered]

    def _claim_on_sqlite(
        self,
        worker: str,
        lease_s: float,
        studies: Collection[str] | None,
        kinds: Collection[TrialKind] | None,
        prefer: Collection[str],
        refuse: Collection[str],
        limit: int,
    ) -> list[tuple[str, Trial]]:
        parameters: dict[str, Any] = {"p_refused": list(refuse)}
        if kinds is not None:
            parameters["p_kinds"] = [kind.value for kind in kinds]
        if studies is not None:
            parameters["p_studies"] = list(studies)
        with self._reading() as connection:
            # Most of the time nothing waits, and then nothing is locked.
            rows = {
                row.name: row for row in connection.execute(asking(kinds is not None, studies is not None), parameters)
            }
            n_running: dict[int, int] = {}
            if len(rows) > 1:
                counted = connection.execute(running(), {"p_ids": [row.id for row in rows.values()]})
                n_running = {row[0]: row[1] for row in counted}
        if not rows:
            return []
        times = self._times(lease_s)
        turns = [_turn(row, n_running.get(row.id, 0)) for row in rows.values()]
        grain = timedelta(seconds=SERVED_GRAIN_S)
        for turn in by_turn(turns, prefer=prefer, now=times["p_now"]):
            served_at = rows[turn.name].served_at
            is_noted = served_at is not None and served_at > times["p_now"] - grain
            found = self._claim(turn.name, worker, times, kinds=kinds, limit=limit, notes_service=not is_noted)
            if found:
                return [(turn.name, trial) for trial in found]
        return []

    def _require_studies(self, names: Collection[str]) -> None:
        """Raise if there is no study of one of these names; studies are never deleted, so it is asked once."""
        unknown = set(names) - self._known_studies
        if unknown:
            with self._reading() as connection:
                for name in sorted(unknown):
                    self._study_id(connection, name)
            self._known_studies |= unknown


def _turn(row: Row[Any], n_running: int) -> Turn:
    return Turn(
        name=row.name,
        n_running=n_running,
        weight=row.weight or 1.0,
        idle_since=row.served_at or row.acquired_at or row.created_at,
    )
