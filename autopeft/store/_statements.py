"""Statements of what workers do again and again, built once: building one takes longer than running it.

Times come from the database server where it keeps the time (`server`), else as parameters. Names of parameters begin
with ``p_``, because SQLAlchemy keeps names of columns for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    DateTime,
    Float,
    LargeBinary,
    ScalarSelect,
    Select,
    Update,
    any_,
    bindparam,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from autopeft.store._models import CurvePointRow, DriverRow, LeaseRow, MeasurementRow, StudyRow, TrialRow, WorkerRow
from autopeft.store._rows import TRIAL_ROW_COLUMNS
from autopeft.store._types import UtcDateTime

#: Columns of a measurement that are written, its trial apart.
MEASUREMENT_VALUES = [item for item in MeasurementRow.__table__.columns if item.name not in ("id", "trial_id")]
_POINT_VALUES = ("epoch", "wall_time_s", "metrics", "n_examples")


def now_of(server: bool) -> ColumnElement[Any]:
    """The present moment: the server's, or the parameter ``p_now``."""
    if server:
        return func.statement_timestamp(type_=DateTime(timezone=True))
    return bindparam("p_now", type_=UtcDateTime())


def expiry_of(server: bool) -> ColumnElement[Any]:
    """When a lease expires: ``p_lease_s`` from now by the server's clock, or the parameter ``p_expiry``."""
    if server:
        interval = literal_column("interval '1 s'").op("*")(bindparam("p_lease_s", type_=Float()))
        return func.statement_timestamp(type_=DateTime(timezone=True)).op("+")(interval)
    return bindparam("p_expiry", type_=UtcDateTime())


def soon_enough() -> ColumnElement[bool]:
    """True, and PostgreSQL does not wait for the disk at the end of this transaction; for what may be lost.

    If the server crashes, the last fraction of a second of such writes may be gone: a claim, which then is another
    worker's to make, a heartbeat, or a point of a curve, which comes again with the result. What was finished is on
    the disk before anybody hears of it, and with it everything that was written before.
    """
    setting = select(func.set_config("synchronous_commit", "off", literal_column("true")))
    return setting.scalar_subquery() == "off"


def n_measured() -> ScalarSelect[int]:
    """How many measurements a trial has, inside a statement about trials."""
    counted = select(func.count()).select_from(MeasurementRow).where(MeasurementRow.trial_id == TrialRow.id)
    return counted.correlate(TrialRow).scalar_subquery()


def _named() -> Select[*tuple[Any, ...]]:
    statement = select(TrialRow.id).join(StudyRow, StudyRow.id == TrialRow.study_id)
    return statement.where(
        StudyRow.name == bindparam("p_study", type_=StudyRow.name.type), TrialRow.number == bindparam("p_number")
    )


def _is_held_by_worker() -> list[ColumnElement[bool]]:
    return [LeaseRow.ended_at.is_(None), LeaseRow.worker == bindparam("p_worker", type_=LeaseRow.worker.type)]


def mine() -> Select[*tuple[Any, ...]]:
    """Key of the trial and of its lease, both locked; no row if the worker does not hold it.

    Both are locked because a row that is waited for is looked at again once it is free, and only such a row is.
    """
    # Not a join, for which all leases that are held would be gone through: few is what the planner expects of them.
    trial = _named().scalar_subquery()
    return (
        select(TrialRow.id, LeaseRow.id.label("lease_id"))
        .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
        .where(LeaseRow.trial_id == trial, *_is_held_by_worker())
        .with_for_update(key_share=True, of=[TrialRow, LeaseRow])
    )


@lru_cache
def held() -> Select[*tuple[Any, ...]]:
    """`mine`, with the numbers of measurements that the trial has and of points that the claim reported."""
    n_points = select(func.count()).select_from(CurvePointRow).where(CurvePointRow.lease_id == LeaseRow.id)
    return mine().add_columns(
        n_measured().label("n_measured"), n_points.correlate(LeaseRow).scalar_subquery().label("n_points")
    )


@lru_cache
def beat(server: bool, is_sqlite: bool) -> Update:
    """Extend a lease, if the worker holds it."""
    trial = _named().scalar_subquery()
    statement = (
        update(LeaseRow)
        .where(LeaseRow.trial_id == trial, *_is_held_by_worker())
        .values(heartbeat_at=now_of(server), expires_at=expiry_of(server))
    )
    return statement if is_sqlite else statement.where(soon_enough())


@lru_cache
def end_lease(server: bool) -> Update:
    """End a lease by its key, with an outcome."""
    return (
        update(LeaseRow)
        .where(LeaseRow.id == bindparam("p_lease"))
        .values(ended_at=now_of(server), outcome=bindparam("p_outcome"))
    )


@lru_cache
def end_trial(server: bool) -> Any:
    """Make a trial COMPLETE or PRUNED; its row as it is then."""
    return (
        update(TrialRow)
        .where(TrialRow.id == bindparam("p_trial"))
        .values(state=bindparam("p_state"), finished_at=now_of(server))
        .returning(*TRIAL_ROW_COLUMNS)
    )


@lru_cache
def add_point(is_sqlite: bool) -> Any:
    """Add a point to the curve of the claim, if the worker holds it; the point at the same step is replaced.

    Says the step; no row if the worker does not hold the trial.
    """
    dialect: Any = sqlite if is_sqlite else postgresql
    lease = (
        select(LeaseRow.id.label("lease_id"))
        .where(LeaseRow.trial_id == _named().scalar_subquery(), *_is_held_by_worker())
        .with_for_update(key_share=True)
        .cte("lease")
    )
    table = CurvePointRow.__table__.columns
    values = [bindparam(f"p_{name}", type_=table[name].type) for name in ("step", *_POINT_VALUES)]
    statement = dialect.insert(CurvePointRow).from_select(
        ["lease_id", "step", *_POINT_VALUES],
        select(lease.c.lease_id, *values).where(true() if is_sqlite else soon_enough()),
    )
    replaced = {name: statement.excluded[name] for name in _POINT_VALUES}
    added = statement.on_conflict_do_update(index_elements=["lease_id", "step"], set_=replaced)
    return added.returning(CurvePointRow.step)


@lru_cache
def keep_driver(server: bool) -> Update:
    """Extend a driver's lease, if the holder has it."""
    study = select(StudyRow.id).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))
    return (
        update(DriverRow)
        .where(DriverRow.study_id == study.scalar_subquery())
        .where(DriverRow.holder == bindparam("p_holder", type_=DriverRow.holder.type))
        .values(heartbeat_at=now_of(server), expires_at=expiry_of(server))
    )


@lru_cache
def announce(server: bool, is_sqlite: bool, has_trials: bool = False) -> Any:
    """Write down what a worker says of itself; says whether it is new.

    With trials, for PostgreSQL, the leases of the trials ``p_numbers`` of the study ``p_study`` that it holds are
    extended, too; says how many that were.
    """
    dialect: Any = sqlite if is_sqlite else postgresql
    table = WorkerRow.__table__.columns
    times = {"announced_at": now_of(server), "heartbeat_at": now_of(server), "expires_at": expiry_of(server)}
    said = [item.name for item in table if item.name not in times]
    values = {name: bindparam(f"p_{name}", type_=table[name].type) for name in said}
    rows = select(*values.values(), *times.values()).where(true() if is_sqlite else soon_enough())
    statement = dialect.insert(WorkerRow).from_select([*values, *times], rows)
    replaced = {name: statement.excluded[name] for name in (*said, "heartbeat_at", "expires_at") if name != "id"}
    # Both moments are of one statement; the first one stays.
    is_new = (WorkerRow.announced_at == WorkerRow.heartbeat_at).label("is_new")
    announced = statement.on_conflict_do_update(index_elements=["id"], set_=replaced)
    if not has_trials:
        return announced.returning(is_new)
    kept = _keep_leases(server).cte("kept")
    n_kept = select(func.count()).select_from(kept).scalar_subquery().label("n_kept")
    return announced.returning(is_new, n_kept).add_cte(kept)


def _keep_leases(server: bool) -> Any:
    study = select(StudyRow.id).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))
    number = bindparam("p_numbers", type_=ARRAY(TrialRow.number.type))
    trials = select(TrialRow.id).where(TrialRow.study_id == study.scalar_subquery(), TrialRow.number == any_(number))
    return (
        update(LeaseRow)
        # As a list, for the reason that `mine` gives.
        .where(LeaseRow.trial_id == any_(func.array(trials.scalar_subquery())), LeaseRow.ended_at.is_(None))
        .where(LeaseRow.worker == bindparam("p_id", type_=LeaseRow.worker.type))
        .values(heartbeat_at=now_of(server), expires_at=expiry_of(server))
        .returning(LeaseRow.id)
    )


@lru_cache
def finish(server: bool, n_measurements: int) -> Any:
    """All of a completion in one statement, for PostgreSQL: no row if the worker does not hold the trial.

    Parameters of the measurements are called ``p_NAME_I``. What SQLite would need several statements for is one here,
    because every statement is a journey to the server and back.
    """
    held_one = mine().cte("mine")
    n_points = select(func.count()).select_from(CurvePointRow).where(CurvePointRow.lease_id == held_one.c.lease_id)
    ended = ending(server, held_one).returning(
        *TRIAL_ROW_COLUMNS,
        n_measured().label("n_measured"),
        held_one.c.lease_id,
        n_points.correlate(held_one).scalar_subquery().label("n_points"),
    )
    return ended.add_cte(*results(server, n_measurements, held_one))


def ending(server: bool, held_one: CTE) -> Update:
    """Make the trial of `mine` COMPLETE or PRUNED."""
    return (
        update(TrialRow)
        .where(TrialRow.id == held_one.c.id)
        .values(state=bindparam("p_state", type_=TrialRow.state.type), finished_at=now_of(server))
    )


def results(server: bool, n_measurements: int, held_one: CTE) -> list[CTE]:
    """What else is written when the trial of `mine` ends: measurements, and the end of its lease."""
    parts = [
        update(LeaseRow)
        .where(LeaseRow.id == held_one.c.lease_id)
        .values(ended_at=now_of(server), outcome=literal("finished"))
        .returning(LeaseRow.id)
        .cte("ended")
    ]
    names = [item.name for item in MEASUREMENT_VALUES]
    rows = []
    for i in range(n_measurements):
        values = [_typed(f"p_{item.name}_{i}", item.type).label(item.name) for item in MEASUREMENT_VALUES]
        rows.append(select(held_one.c.id.label("trial_id"), *values, literal(i).label("place")))
    if rows:
        # Their keys are in the order in which they were given.
        given = union_all(*rows).subquery("given")
        ordered = select(given.c.trial_id, *(given.c[name] for name in names)).order_by(given.c.place)
        added = insert(MeasurementRow).from_select(["trial_id", *names], ordered).returning(MeasurementRow.id)
        parts.append(added.cte("measured"))
    return parts


def _typed(name: str, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """A parameter of which the server knows the type even if it is NULL; the driver says it of all but bytes."""
    parameter: ColumnElement[Any] = bindparam(name, type_=type_)
    return cast(parameter, LargeBinary) if isinstance(type_, LargeBinary) else parameter


@lru_cache
def points_of_lease() -> Select[*tuple[Any, ...]]:
    """The points that a claim reported, by step."""
    columns = (CurvePointRow.step, CurvePointRow.epoch, CurvePointRow.wall_time_s, CurvePointRow.metrics)
    return (
        select(*columns, CurvePointRow.n_examples)
        .where(CurvePointRow.lease_id == bindparam("p_lease"))
        .order_by(CurvePointRow.step)
    )


def measurement_parameters(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Parameters of `finish` for these measurements."""
    return {f"p_{name}_{i}": value for i, row in enumerate(rows) for name, value in row.items()}


def named(study_name: str, number: int, worker: str) -> dict[str, Any]:
    """Parameters that name a trial and who holds it."""
    return {"p_study": study_name, "p_number": int(number), "p_worker": worker}
