"""The end of a trial and the next claim in a database. Oracle: the two steps one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.exceptions import TrialConflictError
from autopeft.store import SqlStore
from autopeft.study import TrialState
from tests.store.builders import make_draft, make_measurement, make_spec


def filled(path: Path) -> SqlStore:
    store = SqlStore(path)
    store.create_study(make_spec())
    store.add_trials("s", [make_draft(rank) for rank in (1, 2, 3)])
    store.acquire_driver("s", "d", executor="workers", lease_s=60)
    store.claim_next("w", lease_s=60)
    return store


def test_in_one_call_happens_what_happens_in_two(tmp_path: Path) -> None:
    with filled(tmp_path / "one.db") as one, filled(tmp_path / "two.db") as two:
        ((study, taken),) = one.complete_and_claim("s", 0, "w", [make_measurement()], lease_s=60)
        two.complete_trial("s", 0, "w", [make_measurement()])
        ((same_study, same),) = two.claim_next("w", lease_s=60)
        assert (study, taken.number, taken.draft) == (same_study, same.number, same.draft)
        for left, right in zip(one.load_study("s").trials, two.load_study("s").trials, strict=True):
            assert (left.state, left.attempts, left.worker) == (right.state, right.attempts, right.worker)
            assert left.measurements == right.measurements


def test_who_does_not_hold_the_trial_is_given_no_other(tmp_path: Path) -> None:
    with filled(tmp_path / "a.db") as store:
        with pytest.raises(TrialConflictError, match="thief"):
            store.complete_and_claim("s", 0, "thief", [make_measurement()], lease_s=60)
        states = [trial.state for trial in store.load_study("s").trials]
        assert states == [TrialState.RUNNING, TrialState.WAITING, TrialState.WAITING]
