"""Taking WAITING trials. Statements are built once: building one takes longer than running it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Select,
    Update,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)

from autopeft.store._cluster import LOCAL_EXECUTOR, PATIENCE_S
from autopeft.store._models import DriverRow, LeaseRow, StudyRow, TrialRow
from autopeft.store._rows import TRIAL_ROW_COLUMNS, make_trial, read_measurements
from autopeft.store._statements import expiry_of, n_measured, now_of
from autopeft.study import Trial, TrialKind, TrialState

#: What the trials of one batch have in common.
_BATCH_COLUMNS = (TrialRow.kind, TrialRow.train_examples, TrialRow.epochs)
#: How exactly it is known when a study got a worker last: its row is not written more often, in seconds.
SERVED_GRAIN_S = 1.0


def claim_waiting(
    connection: Connection,
    study_name: str,
    worker: str,
    times: Mapping[str, Any],
    *,
    server: bool,
    kinds: Collection[TrialKind] | None = None,
    numbers: Collection[int] | None = None,
    limit: int = 1,
    notes_service: bool = False,
) -> list[Trial]:
    """Take the WAITING trials with the lowest numbers; several have the kind and fidelity of the first.

    Rows that another transaction is taking at this moment are passed over.

    Args:
        connection: Inside a transaction; on PostgreSQL it may be one that ends with each statement.
        study_name: Study to take from.
        worker: Who takes them.
        times: Parameters of `now_of` and `expiry_of`.
        server: Whether the server keeps the time.
        kinds: Kinds to choose from; None for all.
        numbers: Numbers to choose from; None for all.
        limit: Most trials to take.
        notes_service: Whether it is written down when the study got a worker; on SQLite.
    """
    parameters: dict[str, Any] = {**times, "p_study": study_name, "p_by": worker, "p_limit": limit}
    if kinds is not None:
        parameters["p_kinds"] = [kind.value for kind in kinds]
    if numbers is not None:
        parameters["p_numbers"] = [int(item) for item in numbers]
    choice = kinds is not None, numbers is not None, limit > 1
    if connection.dialect.name == "sqlite":
        rows: Sequence[Any] = connection.execute(_take(server, *choice), parameters).all()
        if rows:
            connection.execute(_lease(server), [{**times, "p_by": worker, "p_trial": row.id} for row in rows])
            if notes_service:
                connection.execute(_serve(server), parameters)
    else:
        rows = connection.execute(_take_at_once(server, *choice), parameters).all()
    return _made(connection, rows)


def _made(connection: Connection, rows: Sequence[Any]) -> list[Trial]:
    # Only a trial that was stopped early and goes on has any.
    measured = [row.id for row in rows if row.n_measured]
    measurements = read_measurements(connection, measured) if measured else {}
    ordered = sorted(rows, key=lambda row: int(row.number))
    return [make_trial(row, tuple(measurements.get(row.id, ()))) for row in ordered]


@lru_cache
def _take(server: bool, has_kinds: bool, has_numbers: bool, is_batch: bool) -> Any:
    study_id = select(StudyRow.id).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))
    where: list[Any] = []
    if has_kinds:
        where.append(TrialRow.kind.in_(bindparam("p_kinds", expanding=True)))
    if has_numbers:
        where.append(TrialRow.number.in_(bindparam("p_numbers", expanding=True)))
    return _taking(study_id.scalar_subquery(), where, server=server, is_batch=is_batch)


def _taking(study_id: Any, where: Sequence[Any], *, server: bool, is_batch: bool) -> Any:
    """Make WAITING trials of a study RUNNING; their rows as they are then."""
    waiting = select(TrialRow.id).where(
        TrialRow.study_id == study_id, TrialRow.state == TrialState.WAITING.value, *where
    )
    waiting = waiting.order_by(TrialRow.number)
    if is_batch:
        first = waiting.with_only_columns(*_BATCH_COLUMNS).limit(1)
        first_row = first.with_for_update(skip_locked=True, key_share=True).cte("first")
        waiting = waiting.where(tuple_(*_BATCH_COLUMNS).in_(select(first_row)))
    # In a CTE, so that no plan can run it twice.
    chosen = waiting.limit(bindparam("p_limit")).with_for_update(skip_locked=True, key_share=True).cte("chosen")
    return (
        update(TrialRow)
        .where(TrialRow.id == chosen.c.id)
        .values(
            state=TrialState.RUNNING.value,
            attempts=TrialRow.attempts + 1,
            worker=bindparam("p_by", type_=TrialRow.worker.type),
            started_at=now_of(server),
        )
        .returning(*TRIAL_ROW_COLUMNS, n_measured().label("n_measured"))
    )


_LEASE_COLUMNS = ("trial_id", "worker", "claimed_at", "heartbeat_at", "expires_at")


def _lease_values(server: bool) -> list[Any]:
    worker = bindparam("p_by", type_=LeaseRow.worker.type)
    return [worker, now_of(server), now_of(server), expiry_of(server)]


@lru_cache
def _lease(server: bool) -> Any:
    values = [bindparam("p_trial"), *_lease_values(server)]
    return insert(LeaseRow).values(dict(zip(_LEASE_COLUMNS, values, strict=True)))


@lru_cache
def _serve(server: bool) -> Update:
    study = select(StudyRow.id).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))
    return update(DriverRow).where(DriverRow.study_id == study.scalar_subquery()).values(served_at=now_of(server))


@lru_cache
def _take_at_once(server: bool, has_kinds: bool, has_numbers: bool, is_batch: bool) -> Any:
    """All of a claim in one statement, for PostgreSQL: every statement is a journey to the server and back."""
    taken = _take(server, has_kinds, has_numbers, is_batch).cte("taken")
    leased = insert(LeaseRow).from_select(list(_LEASE_COLUMNS), select(taken.c.id, *_lease_values(server)))
    return select(taken).add_cte(leased.returning(LeaseRow.id).cte("leased"))


def _any_of(column: Any, parameter: str) -> Any:
    return column == any_(bindparam(parameter, type_=ARRAY(column.type)))


@lru_cache
def _take_by_turn(server: bool, has_kinds: bool, is_named: bool, is_batch: bool) -> Any:
    """All of `claim_next` in one statement, for PostgreSQL; whose turn it is as in `autopeft.store._turns.by_turn`.

    Gives the study whose turn it is and the trials; no row if nothing waits, and NULLs if others were faster.
    """
    now = now_of(server)

    def ago(seconds: float) -> Any:
        return now.op("-")(literal_column(f"interval '{seconds:g} s'"))

    kinds = [_any_of(TrialRow.kind, "p_kinds")] if has_kinds else []
    waiting = exists().where(TrialRow.study_id == StudyRow.id, TrialRow.state == TrialState.WAITING.value, *kinds)
    idle_since = func.coalesce(DriverRow.served_at, DriverRow.acquired_at, StudyRow.created_at)
    driven = select(
        StudyRow.id, StudyRow.name, func.coalesce(DriverRow.weight, 1.0).label("weight"), idle_since.label("idle_since")
    ).join(DriverRow, DriverRow.study_id == StudyRow.id, isouter=is_named)
    chosen = _any_of(StudyRow.name, "p_studies") if is_named else DriverRow.executor != LOCAL_EXECUTOR
    asks = driven.where(chosen, not_(_any_of(StudyRow.name, "p_refused")), waiting).cte("asking")
    n_running = select(func.count()).where(TrialRow.study_id == asks.c.id, TrialRow.state == TrialState.RUNNING.value)
    # Where one study asks there is nothing to count.
    is_alone = select(func.count()).select_from(asks).scalar_subquery() == 1
    share = case((is_alone, 0.0), else_=n_running.correlate(asks).scalar_subquery() / asks.c.weight)
    is_patient = asks.c.idle_since > ago(PATIENCE_S)
    is_unprepared = and_(is_patient, not_(_any_of(asks.c.name, "p_prefer")))
    order = (share, is_patient, is_unprepared, asks.c.idle_since, asks.c.name)
    turn = select(asks.c.id, asks.c.name).order_by(*order).limit(1).cte("turn")

    taken = _taking(select(turn.c.id).scalar_subquery(), kinds, server=server, is_batch=is_batch).cte("taken")
    leased = insert(LeaseRow).from_select(list(_LEASE_COLUMNS), select(taken.c.id, *_lease_values(server)))
    # Of many that claim at once, one writes.
    is_old = or_(DriverRow.served_at.is_(None), DriverRow.served_at <= ago(SERVED_GRAIN_S))
    served = (
        update(DriverRow)
        .where(DriverRow.study_id == select(turn.c.id).scalar_subquery(), exists(select(taken.c.id)), is_old)
        .values(served_at=now)
        .returning(DriverRow.study_id)
    )
    joined = turn.outerjoin(taken, true())
    statement = select(turn.c.name.label("study_name"), taken).select_from(joined)
    return statement.add_cte(leased.returning(LeaseRow.id).cte("leased"), served.cte("served"))


def claim_by_turn(
    connection: Connection,
    worker: str,
    times: Mapping[str, Any],
    *,
    server: bool,
    studies: Collection[str] | None,
    kinds: Collection[TrialKind] | None,
    prefer: Collection[str],
    refuse: Collection[str],
    limit: int,
) -> tuple[bool, list[tuple[str, Trial]]]:
    """`claim_next` on PostgreSQL, in one statement.

    Returns:
        Whether anything waits, and what was taken of it: nothing if others were faster.
    """
    parameters: dict[str, Any] = {**times, "p_by": worker, "p_limit": limit}
    parameters |= {"p_prefer": list(prefer), "p_refused": list(refuse)}
    if kinds is not None:
        parameters["p_kinds"] = [kind.value for kind in kinds]
    if studies is not None:
        parameters["p_studies"] = list(studies)
    statement = _take_by_turn(server, kinds is not None, studies is not None, limit > 1)
    rows = connection.execute(statement, parameters).all()
    taken = [row for row in rows if row.id is not None]
    trials = _made(connection, taken)
    return bool(rows), [(rows[0].study_name, trial) for trial in trials]


@lru_cache
def asking(has_kinds: bool, is_named: bool) -> Select[*tuple[Any, ...]]:
    """Studies that have WAITING trials and may be served, with their drivers where they have one."""
    waiting = exists().where(TrialRow.study_id == StudyRow.id, TrialRow.state == TrialState.WAITING.value)
    if has_kinds:
        waiting = waiting.where(TrialRow.kind.in_(bindparam("p_kinds", expanding=True)))
    columns = (StudyRow.id, StudyRow.name, StudyRow.created_at)
    statement = select(*columns, DriverRow.weight, DriverRow.acquired_at, DriverRow.served_at)
    if is_named:
        statement = statement.outerjoin(DriverRow, DriverRow.study_id == StudyRow.id)
        statement = statement.where(StudyRow.name.in_(bindparam("p_studies", expanding=True)))
    else:
        statement = statement.join(DriverRow, DriverRow.study_id == StudyRow.id)
        statement = statement.where(DriverRow.executor != LOCAL_EXECUTOR)
    return statement.where(StudyRow.name.not_in(bindparam("p_refused", expanding=True)), waiting)


@lru_cache
def running() -> Select[*tuple[Any, ...]]:
    """How many trials of some studies are RUNNING."""
    return (
        select(TrialRow.study_id, func.count())
        .where(TrialRow.study_id.in_(bindparam("p_ids", expanding=True)), TrialRow.state == TrialState.RUNNING.value)
        .group_by(TrialRow.study_id)
    )
