"""What has changed in a study since somebody looked: only that is read again, so that a long study stays cheap.

A trial that is COMPLETE or FAILED never changes again, and one that is PRUNED only by being continued and claimed. So
it is enough to look at the unfinished trials, of which there are few, and at the claims since. Every claim has a row of
its own, whose key is larger than that of any claim that could be seen before: what was continued, claimed and stopped
again between two looks is found by it.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from autopeft.store._base import StudyChanges, StudyMark
from autopeft.store._models import LeaseRow, TrialRow
from autopeft.store._rows import read_trials
from autopeft.study import TrialState

_UNFINISHED = (TrialState.WAITING.value, TrialState.RUNNING.value)


def read_changes(connection: Connection, study_id: int, mark: StudyMark | None, *, running: bool) -> StudyChanges:
    """See `TrialStore.load_changes`, spec and attributes apart; the transaction must see one moment."""
    last_claim = connection.execute(select(func.max(LeaseRow.id))).scalar() or 0
    unfinished = _read_unfinished(connection, study_id)
    if mark is None:
        trials = read_trials(connection, study_id)
        new = StudyMark(n_trials=len(trials), last_claim=last_claim, unfinished=unfinished)
        return StudyChanges(mark=new, trials=trials)
    changed = {number for number, seen in unfinished.items() if mark.unfinished.get(number) != seen}
    changed |= mark.unfinished.keys() - unfinished.keys()
    if running:
        changed |= {number for number, (state, _) in unfinished.items() if state == TrialState.RUNNING.value}
    if last_claim > mark.last_claim:
        changed |= _claimed_since(connection, study_id, mark.last_claim)
    n_trials = _count(connection, study_id)
    changed |= set(range(mark.n_trials, n_trials))
    new = StudyMark(n_trials=n_trials, last_claim=last_claim, unfinished=unfinished)
    return StudyChanges(mark=new, trials=read_trials(connection, study_id, numbers=changed) if changed else ())


def _read_unfinished(connection: Connection, study_id: int) -> dict[int, tuple[str, int]]:
    statement = select(TrialRow.number, TrialRow.state, TrialRow.attempts).where(
        TrialRow.study_id == study_id, TrialRow.state.in_(_UNFINISHED)
    )
    return {number: (state, attempts) for number, state, attempts in connection.execute(statement)}


def _claimed_since(connection: Connection, study_id: int, last_claim: int) -> set[int]:
    statement = (
        select(TrialRow.number)
        .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
        .where(LeaseRow.id > last_claim, TrialRow.study_id == study_id)
    )
    return set(connection.execute(statement).scalars())


def _count(connection: Connection, study_id: int) -> int:
    # Numbers have no gaps, so the largest one tells.
    largest = connection.execute(select(func.max(TrialRow.number)).where(TrialRow.study_id == study_id)).scalar()
    return 0 if largest is None else largest + 1
