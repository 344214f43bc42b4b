from __future__ import annotations

from dataclasses import replace

from autopeft.pruners import to_continue
from autopeft.study import TrialState
from tests.pruners.simulated import RUNGS, make_trial, pruner
from tests.pruners.test_policy import history, hopeless, strict


def stopped(number: int, cost: int, scores: tuple[float, ...]):
    return make_trial(number, cost, scores, state=TrialState.PRUNED)


def test_mo_asha_continues_those_that_are_among_the_best_now() -> None:
    """As arXiv 2106.12639 promotes: worse trials that come later lift a stopped one into the first third."""
    trials = [*history(8), stopped(1, 10**6, (0.5,))]
    assert to_continue(pruner("mo_asha"), trials) == []
    worse = [make_trial(100 + i, 10**7, (0.1,), state=TrialState.RUNNING) for i in range(30)]
    assert to_continue(pruner("mo_asha"), [*trials, *worse]) == [1]


def test_pareto_continues_what_is_on_the_front_and_leaves_the_rest() -> None:
    trials = [*history(8), stopped(1, 10**6, (0.02,)), stopped(2, 10, (0.3,)), stopped(3, 10, (0.2, 0.31))]
    # The farthest along comes first.
    assert to_continue(pruner("pareto"), trials) == [3, 2]


def test_a_pruner_that_steps_back_continues_nothing() -> None:
    few = [*history(4), stopped(1, 10, (0.99,))]
    assert to_continue(strict(), few) == []
    noise = [*history(60, is_informative=False), stopped(1, 10, (0.99,))]
    assert to_continue(strict(), noise) == []
    assert to_continue(pruner("none"), few) == []


def test_only_pruned_trials_are_continued() -> None:
    trials = [*history(8), replace(hopeless(1), state=TrialState.RUNNING)]
    assert to_continue(pruner("pareto"), trials) == []
    assert RUNGS
