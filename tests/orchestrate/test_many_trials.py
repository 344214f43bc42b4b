"""How a search asks for many trials at once: in parts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autopeft.exceptions import TrialConflictError
from autopeft.orchestrate import _loop
from autopeft.samplers import Suggestion
from autopeft.samplers._random import RandomSampler
from autopeft.store import MemoryStore
from autopeft.study import Trial
from tests.orchestrate.test_loop import make_loop
from tests.orchestrate.toys import ToyRunner


def test_what_is_asked_for_in_parts_is_what_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the same search that asks for everything at once; no part is larger than it may be."""
    added: list[int] = []

    class Counting(MemoryStore):
        def add_trials(self, name, drafts, **more):
            added.append(len(drafts))
            return super().add_trials(name, drafts, **more)

    def search(most: int) -> list[str]:
        monkeypatch.setattr(_loop, "_MOST_AT_ONCE", most)
        added.clear()
        result = make_loop(Counting(), ToyRunner(), cohort=7, trials=7, confirm_top=0).run()
        return [item.configuration.fingerprint for item in result.study.trials]

    whole = search(250)
    assert added == [7]
    assert search(3) == whole
    assert added == [3, 3, 1]


@pytest.mark.parametrize("most", [2, 250])
def test_a_space_that_ends_in_the_middle_is_said_to_have_as_many_as_were_tried(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    class Few(RandomSampler):
        def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
            return super().ask(trials, min(n, 5 - len(trials)))

    monkeypatch.setattr(_loop, "_MOST_AT_ONCE", most)
    monkeypatch.setattr(_loop, "make_sampler", lambda _, earlier, **more: Few(**more))
    result = make_loop(MemoryStore(), ToyRunner(), cohort=8, trials=8, confirm_top=0).run()
    assert result.stopped_early == "the search space is exhausted after 5 trials"
    assert len(result.study.trials) == 5


def test_whoever_added_trials_meanwhile_ends_an_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    class Raced(MemoryStore):
        n_conflicts = 0

        def add_trials(self, name, drafts, **more):
            if not self.n_conflicts:
                self.n_conflicts += 1
                raise TrialConflictError("another process was faster.")
            return super().add_trials(name, drafts, **more)

    asked: list[tuple[int, int]] = []

    class Noting(RandomSampler):
        def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
            asked.append((len(trials), n))
            return super().ask(trials, n)

    monkeypatch.setattr(_loop, "_MOST_AT_ONCE", 3)
    monkeypatch.setattr(_loop, "make_sampler", lambda _, earlier, **more: Noting(**more))
    make_loop(Raced(), ToyRunner(), cohort=6, trials=6, confirm_top=0).run()
    assert asked == [(0, 3), (0, 3), (3, 3)]
