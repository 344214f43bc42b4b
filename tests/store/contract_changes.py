"""The part of the store's contract that concerns what has changed, and the follower that lives on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from autopeft.exceptions import NotFoundError
from autopeft.store import StudyFollower, TrialStore
from autopeft.study import Rung, Trial, TrialKind, TrialState
from tests.store.builders import FAILURE, FakeClock, claimed, make_draft, make_measurement, make_point


class History:
    """A random life of a study; some of its trials are pruned and continued between two looks."""

    def __init__(self, store: TrialStore, study: str, clock: FakeClock, seed: int) -> None:
        self._store = store
        self._study = study
        self._clock = clock
        self._rng = random.Random(seed)
        self._rank = 0
        self._rung = 0

    def step(self) -> None:
        moves: list[Callable[[], object]] = [
            self._add, self._add, self._claim, self._claim, self._point, self._complete, self._prune, self._prune,
            self._continue, self._fail, self._release, self._lose, self._prune_again,
        ]  # fmt: skip
        self._rng.choice(moves)()

    def _in(self, state: TrialState) -> int | None:
        found = [item.number for item in self._store.load_study(self._study).trials if item.state is state]
        return self._rng.choice(found) if found else None

    def _add(self) -> None:
        self._rank += 1
        kind = self._rng.choice([TrialKind.SEARCH, TrialKind.BASELINE])
        self._store.add_trial(self._study, make_draft(self._rank, kind=kind))

    def _claim(self, number: int | None = None) -> None:
        numbers = None if number is None else [number]
        self._store.claim_trial(self._study, "w", lease_s=60, numbers=numbers)

    def _point(self) -> None:
        if (number := self._in(TrialState.RUNNING)) is not None:
            self._store.add_point(self._study, number, "w", make_point(self._rng.randrange(9)))

    def _complete(self) -> None:
        if (number := self._in(TrialState.RUNNING)) is not None:
            self._store.complete_trial(self._study, number, "w", [make_measurement(self._rng.random())])

    def _prune(self, number: int | None = None) -> None:
        number = self._in(TrialState.RUNNING) if number is None else number
        if number is not None:
            self._rung += 1
            measured = replace(make_measurement(self._rng.random()), rung=Rung(step=self._rung, n_steps=10**6))
            self._store.complete_trial(self._study, number, "w", [measured], TrialState.PRUNED)

    def _continue(self) -> None:
        if (number := self._in(TrialState.PRUNED)) is not None:
            self._store.continue_trial(self._study, number)

    def _prune_again(self) -> None:
        """All of it between two looks: only the claim tells that anything has happened."""
        if (number := self._in(TrialState.PRUNED)) is not None:
            self._store.continue_trial(self._study, number)
            self._claim(number)
            self._prune(number)

    def _fail(self) -> None:
        if (number := self._in(TrialState.RUNNING)) is not None:
            self._store.fail_trial(self._study, number, "w", FAILURE)

    def _release(self) -> None:
        if (number := self._in(TrialState.RUNNING)) is not None:
            self._store.release_trial(self._study, number, "w")

    def _lose(self) -> None:
        self._clock.advance(self._rng.choice([20, 70]))
        self._store.release_expired(self._study, max_attempts=2)


def without_curves_of_running(trials: tuple[Trial, ...]) -> list[Trial]:
    return [replace(item, curve=()) if item.state is TrialState.RUNNING else item for item in trials]


class ChangesContract:
    """What changed since a look is all that changed."""

    @pytest.mark.parametrize("running", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_a_follower_sees_what_loading_the_study_shows(
        self, store: TrialStore, study: str, clock: FakeClock, seed: int, running: bool
    ) -> None:
        """Oracle: the study loaded anew."""
        history = History(store, study, clock, seed)
        follower = StudyFollower(store, study, running=running)
        rng = random.Random(seed)
        for _ in range(40):
            for _ in range(rng.randrange(5)):
                history.step()
            seen, there = follower.refresh(), store.load_study(study)
            assert seen.spec == there.spec
            if running:
                assert seen.trials == there.trials
            assert without_curves_of_running(seen.trials) == without_curves_of_running(there.trials)
            assert follower.n_trials == len(there.trials)
            assert follower.unfinished() == tuple(item for item in seen.trials if not item.state.is_finished)
            for kind in TrialKind:
                for state in TrialState:
                    assert follower.count([kind], state) == len(there.of_kind(kind, state=state))
        assert follower.count() == len(there.trials)
        assert follower.n_finished() == sum(item.state.is_finished for item in there.trials)

    def test_what_is_finished_is_not_read_again(self, store: TrialStore, study: str) -> None:
        for rank in range(1, 4):
            claimed(store, study, rank=rank)
        follower = StudyFollower(store, study)
        assert [item.number for item in (follower.refresh(), follower.changed)[1]] == [0, 1, 2]
        store.complete_trial(study, 0, "w", [make_measurement()])
        store.add_trial(study, make_draft(9))
        follower.refresh()
        assert [(item.number, item.state) for item in follower.changed] == [
            (0, TrialState.COMPLETE), (3, TrialState.WAITING),
        ]  # fmt: skip
        follower.refresh()
        assert follower.changed == ()
        assert follower.trial(0).state is TrialState.COMPLETE
        assert follower.unfinished([TrialKind.BASELINE]) == ()

    def test_running_trials_are_followed_where_asked_for(self, store: TrialStore, study: str) -> None:
        claimed(store, study)
        follower = StudyFollower(store, study, running=True)
        follower.refresh()
        store.add_point(study, 0, "w", make_point(3))
        assert follower.refresh().trials[0].curve == (make_point(3),)

    def test_attributes_are_those_of_the_first_look(self, store: TrialStore, study: str) -> None:
        store.set_attribute(study, "a", 1)
        follower = StudyFollower(store, study)
        assert follower.refresh().attributes == {"a": 1}
        store.set_attribute(study, "a", 2)
        assert follower.refresh().attributes == {"a": 1}

    def test_nobody_can_follow_what_is_not_there(self, store: TrialStore) -> None:
        follower = StudyFollower(store, "x")
        with pytest.raises(NotFoundError, match="no study named 'x'"):
            follower.refresh()
        with pytest.raises(RuntimeError, match=r"study 'x' was not looked at yet; call refresh\(\) first"):
            _ = follower.study
