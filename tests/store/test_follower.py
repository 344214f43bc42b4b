"""What a follower keeps; that it misses nothing is in the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.store import MemoryStore, SqlStore, StudyFollower
from autopeft.study import TrialState
from tests.store.builders import claimed, make_draft, make_measurement, make_spec


def test_environments_that_are_equal_are_held_once(tmp_path: Path) -> None:
    with SqlStore(tmp_path / "a.db") as store:
        store.create_study(make_spec())
        for rank in (1, 2):
            trial = claimed(store, "s", rank=rank)
            store.complete_trial("s", trial.number, "w", [make_measurement()])
        first, second = StudyFollower(store, "s").refresh().trials
    assert first.measurements[0].environment is second.measurements[0].environment
    assert first.measurements[0].environment == make_measurement().environment


def test_who_shares_a_follower_misses_nothing() -> None:
    store = MemoryStore()
    store.create_study(make_spec())
    claimed(store, "s", rank=1)
    follower = StudyFollower(store, "s")
    follower.refresh()
    one, other = follower.subscribe(), follower.subscribe()
    assert [trial.number for trial in one.take()] == [0]
    claimed(store, "s", rank=2)
    follower.refresh()
    store.complete_trial("s", 0, "w", [make_measurement()])
    follower.refresh()
    assert [(trial.number, trial.state) for trial in one.take()] == [
        (0, TrialState.COMPLETE), (1, TrialState.RUNNING),
    ]  # fmt: skip
    assert one.take() == ()
    assert [trial.number for trial in other.take()] == [0, 1]


@pytest.mark.parametrize("is_sql", [True, False])
def test_what_was_added_just_now_is_not_read_again(tmp_path: Path, is_sql: bool) -> None:
    """Oracle: a follower that was told nothing."""
    store = SqlStore(tmp_path / "a.db") if is_sql else MemoryStore()
    store.create_study(make_spec())
    follower, oracle = StudyFollower(store, "s"), StudyFollower(store, "s")
    follower.add([store.add_trial("s", make_draft(1))])
    follower.refresh()
    assert follower.n_trials == 1, "before the first look, nothing is taken note of"
    changes = follower.subscribe()
    changes.take()
    added = store.add_trials("s", [make_draft(2), make_draft(3)], notes=[{"a": 1}, {}])
    follower.add(added)
    assert follower.study.trials == oracle.refresh().trials
    assert follower.count(None, TrialState.WAITING) == 3
    assert changes.take() == tuple(added)
    follower.refresh()
    assert changes.take() == (() if is_sql else tuple(added)), "a database says what has changed since"
    store.add_trial("s", make_draft(4))
    follower.add([store.add_trial("s", make_draft(5))])
    assert follower.n_trials == 3, "one is missing between"
    store.claim_trial("s", "w", lease_s=60)
    assert follower.refresh().trials == oracle.refresh().trials
    store.close()
