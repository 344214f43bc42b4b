"""What a follower keeps; that it misses nothing is in the contract."""

from __future__ import annotations

from pathlib import Path

from autopeft.store import MemoryStore, SqlStore, StudyFollower
from autopeft.study import TrialState
from tests.store.builders import claimed, make_measurement, make_spec


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
