"""What a follower keeps; that it misses nothing is in the contract."""

from __future__ import annotations

from autopeft.store import MemoryStore, StudyFollower
from tests.store.builders import claimed, make_measurement, make_spec


def test_environments_that_are_equal_are_held_once() -> None:
    store = MemoryStore()
    store.create_study(make_spec())
    for rank in (1, 2):
        trial = claimed(store, "s", rank=rank)
        store.complete_trial("s", trial.number, "w", [make_measurement()])
    first, second = StudyFollower(store, "s").refresh().trials
    assert first.measurements[0].environment is second.measurements[0].environment
    assert first.measurements[0].environment == make_measurement().environment
