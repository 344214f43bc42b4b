"""Rows of the tables `drivers` and `workers`, and the values that they stand for."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from autopeft.store._cluster import DriverLease, WorkerFacts, WorkerRecord, WorkerState
from autopeft.store._codec import to_json
from autopeft.store._models import DriverRow, StudyRow, WorkerRow


def read_driver(connection: Connection, study_id: int, now: datetime) -> DriverLease | None:
    """Who drives a study; None if nobody does.

    Args:
        connection: Connection inside a transaction.
        study_id: Study.
        now: The store's time.
    """
    row = connection.execute(_drivers().where(DriverRow.study_id == study_id)).first()
    return None if row is None else _lease(row, now)


def read_drivers(connection: Connection, now: datetime) -> list[DriverLease]:
    """Who drives which study, in the order of the studies."""
    return [_lease(row, now) for row in connection.execute(_drivers().order_by(DriverRow.study_id))]


def read_workers(connection: Connection, now: datetime) -> list[WorkerRecord]:
    """All workers, in the order in which they announced themselves."""
    columns = list(WorkerRow.__table__.columns)
    rows = connection.execute(select(*columns).order_by(WorkerRow.announced_at, WorkerRow.id))
    return [_worker(row, now) for row in rows]


def _drivers() -> Select[*tuple[Any, ...]]:
    columns = [item for item in DriverRow.__table__.columns if item.name not in ("study_id", "served_at")]
    return select(StudyRow.name.label("study"), *columns).join(StudyRow, StudyRow.id == DriverRow.study_id)


def _lease(row: Row[Any], now: datetime) -> DriverLease:
    return DriverLease(**row._mapping, read_at=now)


def worker_values(worker: WorkerFacts) -> dict[str, Any]:
    """A worker as the values of a row.

    Raises:
        ValueError: If something is not JSON-ready.
    """
    return {
        "id": worker.id,
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
