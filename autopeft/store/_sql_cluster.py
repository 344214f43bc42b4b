"""Drivers, workers and fair claims in a database; the contract is `ClusterStore`'s."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, select, update

from autopeft.store import _messages as messages
from autopeft.store._claims import Turn, by_turn, claim_waiting
from autopeft.store._cluster import LOCAL_EXECUTOR, DriverLease, WorkerFacts, WorkerRecord, WorkerState
from autopeft.store._codec import to_json
from autopeft.store._models import DriverRow, StudyRow, TrialRow, WorkerRow
from autopeft.store._sql_core import SqlCore
from autopeft.study import Trial, TrialKind, TrialState

#: How exactly it is known when a study got a worker last: its row is not written more often, in seconds.
_SERVED_GRAIN_S = 1.0
#: Workers that were not heard of for so long are forgotten, in seconds.
_FORGET_S = 86_400.0


class ClusterTables(SqlCore):
    """The tables `drivers` and `workers`."""

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
            row = connection.execute(_drivers().where(DriverRow.study_id == study_id)).first()
            is_own = row is not None and row.holder == holder
            if row is not None and not is_own and row.expires_at > now and row.holder not in dead_holders:
                return _lease(row, now)
            values: dict[str, Any] = {
                "holder": holder,
                "executor": executor,
                "weight": float(weight),
                "acquired_at": row.acquired_at if row is not None and is_own else now,
                "heartbeat_at": now,
                "expires_at": now + timedelta(seconds=lease_s),
            }
            if row is None:
                connection.execute(insert(DriverRow).values(study_id=study_id, **values))
            else:
                connection.execute(update(DriverRow).where(DriverRow.study_id == study_id).values(**values))
            return DriverLease(study=study_name, read_at=now, **values)

    def keep_driver(self, study_name: str, holder: str, lease_s: float) -> None:
        messages.check_claim(holder, lease_s)
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name)
            now = self._now(connection)
            kept = connection.execute(
                update(DriverRow)
                .where(DriverRow.study_id == study_id, DriverRow.holder == holder)
                .values(heartbeat_at=now, expires_at=now + timedelta(seconds=lease_s))
            )
            if kept.rowcount == 0:
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
            row = connection.execute(_drivers().where(DriverRow.study_id == study_id)).first()
            return None if row is None else _lease(row, self._now(connection))

    def drivers(self) -> list[DriverLease]:
        with self._reading() as connection:
            now = self._now(connection)
            return [_lease(row, now) for row in connection.execute(_drivers().order_by(DriverRow.study_id))]

    def announce_worker(self, worker: WorkerFacts, lease_s: float) -> None:
        messages.check_claim(worker.id, lease_s)
        values = _worker_values(worker)
        with self._writing() as connection:
            now = self._now(connection)
            values |= {"heartbeat_at": now, "expires_at": now + timedelta(seconds=lease_s)}
            known = connection.execute(update(WorkerRow).where(WorkerRow.id == worker.id).values(**values))
            if known.rowcount == 0:
                connection.execute(insert(WorkerRow).values(id=worker.id, announced_at=now, **values))
                old = now - timedelta(seconds=_FORGET_S)
                connection.execute(delete(WorkerRow).where(WorkerRow.expires_at < old))

    def retire_worker(self, worker_id: str) -> bool:
        with self._writing() as connection:
            return connection.execute(delete(WorkerRow).where(WorkerRow.id == worker_id)).rowcount > 0

    def workers(self) -> list[WorkerRecord]:
        columns = list(WorkerRow.__table__.columns)
        with self._reading() as connection:
            now = self._now(connection)
            rows = connection.execute(select(*columns).order_by(WorkerRow.announced_at, WorkerRow.id))
            return [_worker(row, now) for row in rows]

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
        messages.check_claim(worker, lease_s)
        messages.check_limit(limit)
        asking = _asking(kinds, refuse)
        with self._reading() as connection:
            if studies is None:
                asking = asking.where(DriverRow.executor != LOCAL_EXECUTOR)
            else:
                asking = asking.where(StudyRow.id.in_([self._study_id(connection, name) for name in studies]))
            # Most of the time nothing waits, and then nothing is locked.
            rows = {row.name: row for row in connection.execute(asking)}
            if not rows:
                return []
            running = _count_running(connection, [row.id for row in rows.values()])
            now = self._now(connection)
        turns = [
            Turn(
                name=row.name,
                n_running=running.get(row.id, 0),
                weight=row.weight or 1.0,
                idle_since=row.served_at or row.acquired_at or row.created_at,
            )
            for row in rows.values()
        ]
        for turn in by_turn(turns, prefer=prefer or (), now=now):
            with self._writing() as connection:
                row = rows[turn.name]
                now = self._now(connection)
                found = claim_waiting(connection, row.id, worker, now=now, lease_s=lease_s, kinds=kinds, limit=limit)
                if found:
                    _note_service(connection, row, now)
                    return [(turn.name, trial) for trial in found]
        return []


def _drivers() -> Select[*tuple[Any, ...]]:
    columns = [item for item in DriverRow.__table__.columns if item.name not in ("study_id", "served_at")]
    return select(StudyRow.name.label("study"), *columns).join(StudyRow, StudyRow.id == DriverRow.study_id)


def _lease(row: Row[Any], now: datetime) -> DriverLease:
    return DriverLease(**row._mapping, read_at=now)


def _worker_values(worker: WorkerFacts) -> dict[str, Any]:
    return {
        "host": worker.host,
        "pid": worker.pid,
        "resources": to_json(dict(worker.resources), "a worker's resources"),
        "versions": to_json(dict(worker.versions), "a worker's versions"),
        "state": worker.state.value,
        "study": worker.study,
        "trials": to_json(list(worker.trials), "a worker's trials"),
        "refusals": to_json(dict(worker.refusals), "a worker's refusals"),
    }


def _worker(row: Row[Any], now: datetime) -> WorkerRecord:
    facts = WorkerFacts(
        id=row.id,
        host=row.host,
        pid=row.pid,
        resources=json.loads(row.resources),
        versions=json.loads(row.versions),
        state=WorkerState(row.state),
        study=row.study,
        trials=tuple(json.loads(row.trials)),
        refusals=json.loads(row.refusals),
    )
    return WorkerRecord(
        facts=facts,
        announced_at=row.announced_at,
        heartbeat_at=row.heartbeat_at,
        expires_at=row.expires_at,
        read_at=now,
    )


def _asking(kinds: Collection[TrialKind] | None, refuse: Collection[str]) -> Select[*tuple[Any, ...]]:
    """Studies with WAITING trials, and their drivers where they have one."""
    waiting = exists().where(TrialRow.study_id == StudyRow.id, TrialRow.state == TrialState.WAITING.value)
    if kinds is not None:
        waiting = waiting.where(TrialRow.kind.in_([kind.value for kind in kinds]))
    statement = (
        select(
            StudyRow.id,
            StudyRow.name,
            StudyRow.created_at,
            DriverRow.weight,
            DriverRow.acquired_at,
            DriverRow.served_at,
        )
        .outerjoin(DriverRow, DriverRow.study_id == StudyRow.id)
        .where(waiting)
    )
    return statement.where(StudyRow.name.not_in(list(refuse))) if refuse else statement


def _count_running(connection: Connection, study_ids: list[int]) -> dict[int, int]:
    if len(study_ids) < 2:
        return {}
    statement = (
        select(TrialRow.study_id, func.count())
        .where(TrialRow.study_id.in_(study_ids), TrialRow.state == TrialState.RUNNING.value)
        .group_by(TrialRow.study_id)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def _note_service(connection: Connection, row: Row[Any], now: datetime) -> None:
    if row.served_at is None or (now - row.served_at).total_seconds() >= _SERVED_GRAIN_S:
        connection.execute(update(DriverRow).where(DriverRow.study_id == row.id).values(served_at=now))
