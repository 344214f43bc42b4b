"""Taking WAITING trials. Statements are built once: building one takes longer than running it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
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
from autopeft.store._rows import TRIAL_ROW_COLUMNS
from autopeft.store._statements import ending, expiry_of, mine, n_measured, now_of, results, soon_enough
from autopeft.study import TrialKind, TrialState

#: What the trials of one batch have in common.
_BATCH_COLUMNS = (TrialRow.kind, TrialRow.train_examples, TrialRow.epochs)
#: How exactly it is known when a study got a worker last: its row is not written more often, in seconds.
SERVED_GRAIN_S = 1.0


def claim_parameters(
    times: Mapping[str, Any],
    worker: str,
    *,
    limit: int,
    kinds: Collection[TrialKind] | None,
    numbers: Collection[int] | None = None,
) -> dict[str, Any]:
    """Parameters of a claim.

    Args:
        times: Parameters of `now_of` and `expiry_of`.
        worker: Who takes the trials.
        limit: Most trials to take.
        kinds: Kinds to choose from; None for all.
        numbers: Numbers to choose from; None for all.
    """
    parameters: dict[str, Any] = {**times, "p_by": worker, "p_limit": limit}
    if kinds is not None:
        parameters["p_kinds"] = [kind.value for kind in kinds]
    if numbers is not None:
        parameters["p_numbers"] = [int(item) for item in numbers]
    return parameters


def claim_on_sqlite(
    connection: Connection,
    parameters: Mapping[str, Any],
    *,
    has_kinds: bool,
    has_numbers: bool,
    notes_service: bool,
) -> Sequence[Any]:
    """Take the WAITING trials with the lowest numbers; several have the kind and fidelity of the first.

    Args:
        connection: Inside a transaction that writes.
        parameters: Those of `claim_parameters`, and ``p_study``.
        has_kinds: Whether only some kinds are to be taken.
        has_numbers: Whether only some numbers are.
        notes_service: Whether it is written down when the study got a worker.

    Returns:
        Rows of the trials, as they are then.
    """
    statement = _take(False, has_kinds, has_numbers, parameters["p_limit"] > 1, is_sqlite=True)
    rows = connection.execute(statement, parameters).all()
    if rows:
        connection.execute(_lease(False), [{**parameters, "p_trial": row.id} for row in rows])
        if notes_service:
            connection.execute(_serve(False), parameters)
    return rows


@lru_cache
def _take(server: bool, has_kinds: bool, has_numbers: bool, is_batch: bool, *, is_sqlite: bool) -> Any:
    study_id = select(StudyRow.id).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))
    among = _in if is_sqlite else _any_of
    where: list[Any] = []
    if has_kinds:
        where.append(among(TrialRow.kind, "p_kinds"))
    if has_numbers:
        where.append(among(TrialRow.number, "p_numbers"))
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
def take_at_once(server: bool, has_kinds: bool, has_numbers: bool, is_batch: bool) -> Any:
    """All of a claim in one statement, for PostgreSQL: every statement is a journey to the server and back."""
    taken = _take(server, has_kinds, has_numbers, is_batch, is_sqlite=False).where(soon_enough()).cte("taken")
    leased = insert(LeaseRow).from_select(list(_LEASE_COLUMNS), select(taken.c.id, *_lease_values(server)))
    return select(taken).add_cte(leased.returning(LeaseRow.id).cte("leased"))


def _in(column: Any, parameter: str) -> Any:
    return column.in_(bindparam(parameter, expanding=True))


def _any_of(column: Any, parameter: str) -> Any:
    return column == any_(bindparam(parameter, type_=ARRAY(column.type)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """Parts of a statement that takes trials of the study whose turn it is.

    Args:
        turn: At most one row: name of the study whose turn it is.
        taken: Rows of the trials; none if others were faster.
        more: What else must be part of the statement.
    """

    turn: CTE
    taken: CTE
    more: tuple[CTE, ...]


@lru_cache
def take_by_turn(server: bool, has_kinds: bool, is_named: bool, is_batch: bool) -> Any:
    """All of `claim_next` in one statement, for PostgreSQL; whose turn it is as in `autopeft.store._turns.by_turn`.

    Gives the study whose turn it is and the trials; no row if nothing waits, and NULLs if others were faster.
    """
    parts = _taking_by_turn(server, has_kinds=has_kinds, is_named=is_named, is_batch=is_batch)
    joined = parts.turn.outerjoin(parts.taken, true())
    statement = select(parts.turn.c.name.label("study_name"), parts.taken).select_from(joined)
    return statement.add_cte(*parts.more)


@lru_cache
def finish_and_take(server: bool, n_measurements: int, has_kinds: bool, is_named: bool, is_batch: bool) -> Any:
    """`autopeft.store._statements.finish`, and then `take_by_turn`, in one statement.

    No row if the worker does not hold the trial; else at least one, with NULLs if nothing waits or others were faster.
    """
    held_one = mine().cte("mine")
    ended = ending(server, held_one).returning(TrialRow.id).cte("finished")
    parts = _taking_by_turn(server, has_kinds=has_kinds, is_named=is_named, is_batch=is_batch, finished=held_one)
    joined = ended.outerjoin(parts.turn, true()).outerjoin(parts.taken, true())
    statement = select(parts.turn.c.name.label("study_name"), parts.taken).select_from(joined)
    return statement.add_cte(*results(server, n_measurements, held_one), *parts.more)


def _taking_by_turn(
    server: bool, *, has_kinds: bool, is_named: bool, is_batch: bool, finished: CTE | None = None
) -> _Taken:
    """Parts of `take_by_turn`.

    Args:
        server: Whether the server's clock counts.
        has_kinds: Whether only some kinds are to be taken.
        is_named: Whether only some studies are, whoever drives them.
        is_batch: Whether several trials may be taken.
        finished: The trial of the study ``p_study`` that ends in the same statement; without a row nothing is taken.
            The result must be on the disk, and with it the claim is. None for a claim alone.
    """
    kinds = [_any_of(TrialRow.kind, "p_kinds")] if has_kinds else []
    turn = _turn(server, kinds, is_named=is_named, finished=finished)
    may_be_lost = [soon_enough()] if finished is None else []
    # What waited before and is taken remains in the index until the server vacuums: it is passed over once, above.
    kinds.append(TrialRow.number >= select(turn.c.first).scalar_subquery())
    update_trial = _taking(select(turn.c.id).scalar_subquery(), kinds, server=server, is_batch=is_batch)
    taken = update_trial.where(*may_be_lost).cte("taken")
    leased = insert(LeaseRow).from_select(list(_LEASE_COLUMNS), select(taken.c.id, *_lease_values(server)))
    # Of many that claim at once, one writes, and nobody waits for it, or for a driver that was stopped in the middle.
    is_old = or_(DriverRow.served_at.is_(None), DriverRow.served_at <= _ago(server, SERVED_GRAIN_S))
    driver = (
        select(DriverRow.study_id)
        .where(DriverRow.study_id == select(turn.c.id).scalar_subquery(), exists(select(taken.c.id)), is_old)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("driver")
    )
    served = (
        update(DriverRow)
        .where(DriverRow.study_id == driver.c.study_id)
        .values(served_at=now_of(server))
        .returning(DriverRow.study_id)
    )
    return _Taken(turn=turn, taken=taken, more=(leased.returning(LeaseRow.id).cte("leased"), served.cte("served")))


def _turn(server: bool, kinds: Sequence[Any], *, is_named: bool, finished: CTE | None) -> CTE:
    """Key and name of the study whose turn it is, and the lowest number that waits; see `_taking_by_turn`."""
    # Not `exists`, which is planned as a join with every trial that waits.
    waiting = select(TrialRow.number).where(
        TrialRow.study_id == StudyRow.id, TrialRow.state == TrialState.WAITING.value, *kinds
    )
    first = waiting.order_by(TrialRow.number).limit(1).correlate(StudyRow).scalar_subquery()
    idle_since = func.coalesce(DriverRow.served_at, DriverRow.acquired_at, StudyRow.created_at)
    weight = func.coalesce(DriverRow.weight, 1.0).label("weight")
    driven = select(StudyRow.id, StudyRow.name, weight, idle_since.label("idle_since"), first.label("first")).join(
        DriverRow, DriverRow.study_id == StudyRow.id, isouter=is_named
    )
    chosen = _any_of(StudyRow.name, "p_studies") if is_named else DriverRow.executor != LOCAL_EXECUTOR
    is_free = [] if finished is None else [exists(select(finished.c.id))]
    asked = (
        driven.where(*is_free, chosen, not_(_any_of(StudyRow.name, "p_refused")))
        .cte("asked")
        .prefix_with("MATERIALIZED")
    )
    asks = select(asked).where(asked.c.first.is_not(None)).cte("asking")
    counted = select(func.count()).where(TrialRow.study_id == asks.c.id, TrialRow.state == TrialState.RUNNING.value)
    n_running: ColumnElement[Any] = counted.correlate(asks).scalar_subquery()
    if finished is not None:
        # It still counts as RUNNING: a statement does not see what it does itself.
        n_running -= case((asks.c.name == bindparam("p_study", type_=StudyRow.name.type), 1), else_=0)
    # Where one study asks there is nothing to count.
    is_alone = select(func.count()).select_from(asks).scalar_subquery() == 1
    share = case((is_alone, 0.0), else_=n_running / asks.c.weight)
    is_patient = asks.c.idle_since > _ago(server, PATIENCE_S)
    is_unprepared = and_(is_patient, not_(_any_of(asks.c.name, "p_prefer")))
    order = (share, is_patient, is_unprepared, asks.c.idle_since, asks.c.name)
    return select(asks.c.id, asks.c.name, asks.c.first).order_by(*order).limit(1).cte("turn")


def _ago(server: bool, seconds: float) -> ColumnElement[Any]:
    return now_of(server).op("-")(literal_column(f"interval '{seconds:g} s'"))


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
