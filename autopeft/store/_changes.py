"""What has changed in a study since somebody looked: only that is read again, so that a long study stays cheap.

A trial that is COMPLETE or FAILED never changes again, and one that is PRUNED only by being continued and claimed. So
it is enough to look at the unfinished trials, of which there are few, and at the claims since. Every claim has a row of
its own, whose key is larger than that of any claim that could be seen before: what was continued, claimed and stopped
again between two looks is found by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, any_, bindparam, func, select

from autopeft.store._base import StudyChanges, StudyMark
from autopeft.store._models import LeaseRow, StudyRow, TrialRow
from autopeft.store._rows import among, in_chunks, read_curves, read_measurements, read_trials, trial_changes
from autopeft.study import CurvePoint, Trial, TrialState

_UNFINISHED = (TrialState.WAITING.value, TrialState.RUNNING.value)
#: What of a trial's own row changes after it was added.
_LIVE_COLUMNS = (
    "id", "number", "state", "attempts", "worker", "started_at", "finished_at", "notes", "failure_reason",
    "failure_message", "failure_traceback",
)  # fmt: skip
_LIVE = [getattr(TrialRow, name) for name in _LIVE_COLUMNS]


def read_changes(
    connection: Connection, study_name: str, mark: StudyMark | None, *, running: bool
) -> StudyChanges | None:
    """See `TrialStore.load_changes`, spec and attributes apart; the transaction must see one moment.

    Returns:
        What has changed; None if there is no such study.
    """
    heads = connection.execute(_heads(), {"p_study": study_name}).first()
    if heads is None:
        return None
    study_id, last_claim = heads.id, heads.last_claim or 0
    # Numbers have no gaps, so the largest one tells.
    n_trials = 0 if heads.last_number is None else heads.last_number + 1
    if mark is None:
        trials = read_trials(connection, study_id, compact=True)
        known = {trial.number: trial for trial in trials if not trial.state.is_finished}
        return StudyChanges(
            mark=StudyMark(n_trials=len(trials), last_claim=last_claim, unfinished=known), trials=trials
        )
    known = dict(mark.unfinished)
    rows = connection.execute(_unfinished(), {"p_study_id": study_id})
    unfinished = {number: (state, attempts) for number, state, attempts in rows}
    changed = {number for number, seen in unfinished.items() if number not in known or seen != _seen(known[number])}
    changed |= known.keys() - unfinished.keys()
    if running:
        changed |= {number for number, (state, _) in unfinished.items() if state == TrialState.RUNNING.value}
    if last_claim != mark.last_claim:
        # A server that crashed may have lost the last claims, and gives their keys again.
        since = {"p_study_id": study_id, "p_claim": mark.last_claim if last_claim > mark.last_claim else 0}
        is_sqlite = connection.dialect.name == "sqlite"
        changed |= set(connection.execute(_claimed_since(is_sqlite), since).scalars())
    changed |= set(range(mark.n_trials, n_trials))
    trials = tuple(_read(connection, study_id, changed, known, running=running)) if changed else ()
    for trial in trials:
        known.pop(trial.number, None)
        if not trial.state.is_finished:
            known[trial.number] = trial
    return StudyChanges(mark=StudyMark(n_trials=n_trials, last_claim=last_claim, unfinished=known), trials=trials)


def _seen(trial: Trial) -> tuple[str, int]:
    return trial.state.value, trial.attempts


def _read(
    connection: Connection, study_id: int, numbers: Collection[int], known: dict[int, Trial], *, running: bool
) -> list[Trial]:
    """Trials by number. Of those that were unfinished, only what can have changed leaves the database."""
    new = [number for number in numbers if number not in known]
    found = list(read_trials(connection, study_id, numbers=new, compact=True)) if new else []
    for chunk in in_chunks([number for number in numbers if number in known]):
        found += _read_chunk(connection, study_id, chunk, known, running=running)
    return sorted(found, key=lambda trial: trial.number)


def _read_chunk(
    connection: Connection, study_id: int, numbers: list[int], known: dict[int, Trial], *, running: bool
) -> Iterator[Trial]:
    live = select(*_LIVE).where(TrialRow.study_id == study_id, among(connection, TrialRow.number, numbers))
    rows: list[Any] = list(connection.execute(live))
    ended = [row for row in rows if row.state not in _UNFINISHED]
    measurements = read_measurements(connection, [row.id for row in ended], compact=True) if ended else {}
    # The points of what is running matter to whoever follows that.
    of_interest = [row.number for row in rows if running or row.state != TrialState.RUNNING.value]
    curves: dict[int, list[CurvePoint]] = {}
    for part in in_chunks(of_interest):
        curves |= read_curves(connection, study_id, part)
    for row in rows:
        before = known[row.number]
        measured = tuple(measurements[row.id]) if row.id in measurements else before.measurements
        yield replace(
            before, measurements=measured, curve=tuple(curves.get(row.id, ())), **trial_changes(row, compact=True)
        )


@lru_cache
def _heads() -> Select[*tuple[Any, ...]]:
    """A study's key, its last number, and the last claim of any study."""
    last_claim = select(func.max(LeaseRow.id)).scalar_subquery()
    last_number = select(func.max(TrialRow.number)).where(TrialRow.study_id == StudyRow.id).correlate(StudyRow)
    return select(
        StudyRow.id, last_claim.label("last_claim"), last_number.scalar_subquery().label("last_number")
    ).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))


@lru_cache
def _unfinished() -> Select[*tuple[Any, ...]]:
    return select(TrialRow.number, TrialRow.state, TrialRow.attempts).where(
        TrialRow.study_id == bindparam("p_study_id"), TrialRow.state.in_(_UNFINISHED)
    )


@lru_cache
def _claimed_since(is_sqlite: bool) -> Select[*tuple[Any, ...]]:
    claimed = select(LeaseRow.trial_id).where(LeaseRow.id > bindparam("p_claim"))
    # As a list, which is looked up; a join goes through all trials where the server does not know how few they are.
    is_claimed = TrialRow.id.in_(claimed) if is_sqlite else TrialRow.id == any_(func.array(claimed.scalar_subquery()))
    return select(TrialRow.number).where(is_claimed, TrialRow.study_id == bindparam("p_study_id"))
