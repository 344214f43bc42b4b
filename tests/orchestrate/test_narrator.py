"""What is told of trials that other processes run."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autopeft.orchestrate._narrator import BestSoFar, Narrator, why_pruned
from autopeft.pruners import PRUNING_NOTE
from autopeft.store import MemoryStore, StudyFollower
from autopeft.study import Failure, Rung, Study, Trial, TrialKind, TrialState, best_within_budget
from tests.study.builders import make_draft, make_measurement, make_spec, make_trial


class Told:
    """Writes every event down."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def plan(self, plan: object) -> None:
        raise AssertionError

    def trial_started(self, trial: Trial) -> None:
        self.events.append(("started", trial.number))

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        self.events.append(("finished", trial.number, None if best is None else best.number))

    def trial_pruned(self, trial: Trial, why: str) -> None:
        self.events.append(("pruned", trial.number, why))

    def trial_failed(self, trial: Trial) -> None:
        self.events.append(("failed", trial.number))

    def message(self, text: str) -> None:
        self.events.append(("message", text))


def test_events_are_told_once_and_in_order() -> None:
    store, told = MemoryStore(), Told()
    store.create_study(make_spec())
    store.add_trials("study", [make_draft(rank=rank) for rank in range(1, 6)])
    for _ in range(2):
        store.claim_trial("study", "w", lease_s=60)
    store.complete_trial("study", 0, "w", [make_measurement(0.9)])
    narrator = Narrator(StudyFollower(store, "study"), told)
    assert not narrator.look()
    assert told.events == [("started", 1)]  # what had ended before is no news
    store.complete_trial("study", 1, "w", [make_measurement(0.5)])
    for _ in range(2):
        store.claim_trial("study", "w", lease_s=60)
    store.set_note("study", 2, PRUNING_NOTE, {"decisions": [{"why": "too slow"}]})
    store.complete_trial(
        "study", 2, "w", [replace(make_measurement(0.1), rung=Rung(step=1, n_steps=9))], TrialState.PRUNED
    )
    assert narrator.look()
    assert told.events[1:] == [("finished", 1, 0), ("started", 2), ("pruned", 2, "too slow"), ("started", 3)]
    store.release_trial("study", 3, "w")
    assert not narrator.look()
    assert told.events[-1] == ("message", "trial 3 was given back; another worker begins it again.")
    store.claim_trial("study", "w", lease_s=60)
    store.fail_trial("study", 3, "w", Failure(reason="error", message="boom"))
    assert narrator.look()
    assert told.events[-2:] == [("started", 3), ("failed", 3)]
    n = len(told.events)
    assert not narrator.look()
    assert len(told.events) == n


@given(
    st.lists(
        st.tuples(st.none() | st.floats(0, 1), st.integers(1, 9999), st.sampled_from(list(TrialKind)), st.booleans()),
        max_size=12,
    )
)
def test_the_best_so_far_is_the_best_of_all(rows: list[tuple[float | None, int, TrialKind, bool]]) -> None:
    """Oracle: the best of the whole study."""
    spec, best = make_spec(), BestSoFar()
    trials: list[Trial] = []
    for number, (accuracy, cost, kind, is_running) in enumerate(rows):
        trial = make_trial(number, accuracy, cost, kind=kind)
        trials.append(replace(trial, state=TrialState.RUNNING, measurements=()) if is_running else trial)
        study = Study(spec=spec, trials=tuple(trials))
        assert best.update(study, trials[-1:]) == best_within_budget(study)


def test_why_a_trial_was_pruned_may_be_unknown() -> None:
    trial = make_trial(0, 0.5, 100)
    assert why_pruned(trial) == ""
    assert why_pruned(replace(trial, notes={PRUNING_NOTE: {"decisions": []}})) == ""
