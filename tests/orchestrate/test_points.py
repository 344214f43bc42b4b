from __future__ import annotations

from dataclasses import replace

import pytest

from autopeft.orchestrate._points import PointKeeper
from autopeft.pruners import PRUNING_NOTE, Decision, Reason
from autopeft.store import MemoryStore
from autopeft.study import CurvePoint, Measurement, Rung, TrialKind, TrialState
from tests.study.builders import FIDELITY, make_draft, make_spec


class Script:
    """Stops at some steps; remembers what it was asked."""

    name, rungs = "script", (1, 3, 6)

    def __init__(self, *stops: int) -> None:
        self.stops = stops
        self.asked: list[tuple[int, int]] = []

    def decide(self, trials, numbers) -> list[Decision]:
        found = []
        for number in numbers:
            step = trials[number].curve[-1].step
            self.asked.append((number, step))
            found.append(Decision(stop=step in self.stops, reason=Reason.RULE, why=f"at {step}", step=step))
        return found


def point(step: int) -> CurvePoint:
    return CurvePoint(step=step, epoch=step / 9, metrics={"accuracy": 0.1 * step}, wall_time_s=float(step))


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.create_study(make_spec())
    made.add_trial("study", make_draft(rank=1, kind=TrialKind.BASELINE, label="LoRA"))
    made.add_trial("study", make_draft(rank=2))
    return made


def claim(store: MemoryStore, worker: str = "w"):
    claimed = []
    while (trial := store.claim_trial("study", worker, lease_s=60)) is not None:
        claimed.append(trial)
    return claimed


def test_points_are_stored_and_decided_about_at_rungs_of_search_trials(store: MemoryStore) -> None:
    pruner = Script(6)
    keeper = PointKeeper(store, "study", claim(store), "w", pruner)
    answers = [[keeper.on_point(index, point(step)) for step in (1, 2, 3, 6)] for index in (0, 1)]
    assert answers == [[False] * 4, [False, False, False, True]]
    assert pruner.asked == [(1, 1), (1, 3), (1, 6)]
    trial = store.load_trial("study", 1)
    assert [item.step for item in trial.curve] == [1, 2, 3, 6]
    decisions = trial.notes[PRUNING_NOTE]["decisions"]  # type: ignore[index]
    assert [(item["step"], item["stop"], item["why"]) for item in decisions] == [
        (1, False, "at 1"), (3, False, "at 3"), (6, True, "at 6"),
    ]  # fmt: skip
    assert keeper.stopped.keys() == {1}
    assert PRUNING_NOTE not in store.load_trial("study", 0).notes


def test_a_trial_of_another_worker_ends(store: MemoryStore) -> None:
    claimed = claim(store, "thief")
    keeper = PointKeeper(store, "study", claimed, "w", Script())
    assert keeper.on_point(1, point(1))
    assert keeper.on_resume(1, [point(1)])
    assert keeper.stopped == {}
    assert store.load_trial("study", 1).curve == ()


def test_what_lies_behind_a_trial_is_stored_and_its_last_rung_decided_about(store: MemoryStore) -> None:
    for stops, expected in (((), False), ((3,), True)):
        pruner = Script(*stops)
        keeper = PointKeeper(store, "study", claim(store) or store.load_study("study").trials, "w", pruner)
        assert keeper.on_resume(1, [point(1), point(3)]) is expected
        assert pruner.asked == [(1, 3)]
    trial = store.load_trial("study", 1)
    assert [item.step for item in trial.curve] == [1, 3]
    assert len(trial.notes[PRUNING_NOTE]["decisions"]) == 1  # type: ignore[index]


def test_a_continued_trial_is_let_past_the_rungs_where_it_was(store: MemoryStore) -> None:
    claim(store)
    at_rung = Measurement(
        split="search", fidelity=FIDELITY, seed=0, metrics={"accuracy": 0.3}, rung=Rung(step=3, n_steps=9)
    )
    store.complete_trial("study", 1, "w", [at_rung], TrialState.PRUNED)
    store.continue_trial("study", 1)
    claimed = claim(store)
    pruner = Script(1, 3, 6)
    keeper = PointKeeper(store, "study", claimed, "w", pruner)
    # Its checkpoint may be there, or gone: then it begins again.
    assert not keeper.on_resume(0, [point(1), point(3)])
    assert [keeper.on_point(0, point(step)) for step in (1, 3, 6)] == [False, False, True]
    assert pruner.asked == [(1, 6)]
    assert replace(claimed[0]).number == 1
