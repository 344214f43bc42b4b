"""Whom every pruner spares, and when it steps back. Properties over simulated studies."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.objectives import Direction, Objective, non_dominated_mask
from autopeft.pruners import PRUNERS, Decision, Reason, make_pruner
from autopeft.pruners._policy import Caution, CautiousPruner
from autopeft.pruners._rules import Verdict
from autopeft.study import TrialKind, TrialState
from tests.pruners.simulated import (
    ACCURACY,
    FIDELITY,
    OBJECTIVES,
    RUNGS,
    make_trial,
    make_world,
    maximized,
    pruner,
)

STOPPING = [name for name in PRUNERS if name != "none"]


class StopsAll:
    """A rule that likes nobody."""

    def judge(self, table, row) -> Verdict:
        return Verdict(stop=True, why="so it is")


def strict(**caution) -> CautiousPruner:
    return CautiousPruner(
        name="strict",
        rule=StopsAll(),
        objectives=OBJECTIVES,
        fidelity=FIDELITY,
        rungs=RUNGS,
        caution=Caution(**caution),
    )


def history(n: int = 8, *, seed: int = 0, is_informative: bool = True) -> list:
    """Completed trials, numbers from 10."""
    world = make_world(seed, n, is_informative=is_informative)
    return [make_trial(10 + i, cost, row) for i, (cost, row) in enumerate(zip(world.costs, world.scores, strict=True))]


def decide(chosen, trials, number) -> Decision:
    return chosen.decide(trials, [number])[0]


def hopeless(number: int, **changes):
    """The dearest and worst at the first rung."""
    return make_trial(number, 10**6, (0.01,), state=TrialState.RUNNING, **changes)


@pytest.mark.parametrize("name", STOPPING)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n_running=st.integers(1, 12))
def test_the_front_at_a_rung_is_never_stopped(name: str, seed: int, n_running: int) -> None:
    """Oracle: dominance over all trials at the rung."""
    world = make_world(seed, 12 + n_running)
    trials = [
        make_trial(i, world.costs[i], world.scores[i] if i < 12 else world.scores[i, :1],
                   state=TrialState.COMPLETE if i < 12 else TrialState.RUNNING)
        for i in range(12 + n_running)
    ]  # fmt: skip
    mask = non_dominated_mask(maximized(np.column_stack([world.scores[:, 0], world.costs])))
    numbers = [i for i in range(12, 12 + n_running) if mask[i]]
    assert not any(item.stop for item in pruner(name).decide(trials, numbers))


@pytest.mark.parametrize("name", STOPPING)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_decision_is_a_function_of_the_trials(name: str, seed: int) -> None:
    """Whatever their order, whoever asks, however often, and whomever else they ask about."""
    world = make_world(seed, 20)
    trials = [make_trial(i, world.costs[i], world.scores[i]) for i in range(12)]
    trials += [make_trial(i, world.costs[i], world.scores[i, :1], state=TrialState.RUNNING) for i in range(12, 20)]
    numbers = list(range(20))
    first = pruner(name).decide(trials, numbers)
    shuffled = random.Random(seed).sample(trials, len(trials))
    chosen = pruner(name)
    assert [decide(chosen, shuffled, number) for number in numbers] == first
    assert chosen.decide(shuffled, numbers[::-1])[::-1] == first
    unmeasured = replace(trials[3], measurements=(), curve=(), state=TrialState.WAITING, number=99)
    assert pruner(name).decide([*trials, unmeasured], numbers) == first


def test_baselines_confirmations_and_other_fidelities_are_exempt() -> None:
    others = [
        hopeless(1, kind=TrialKind.BASELINE),
        hopeless(2, kind=TrialKind.CONFIRMATION),
        hopeless(3, fidelity=replace(FIDELITY, epochs=2)),
    ]
    for item in others:
        assert decide(strict(), [*history(), item], item.number).reason is Reason.EXEMPT
    assert decide(strict(), [*history(), hopeless(4)], 4).stop


def test_it_decides_at_rungs_alone() -> None:
    trials = history()
    between = replace(hopeless(1), curve=(replace(hopeless(1).curve[0], step=11),))
    for item in (between, replace(between, curve=())):
        found = decide(strict(), [*trials, item], 1)
        assert (found.stop, found.reason) == (False, Reason.EXEMPT)
    assert decide(strict(), trials, 10).reason is Reason.EXEMPT  # it is at its end


def test_it_waits_for_completed_trials() -> None:
    found = decide(strict(min_completed=9), [*history(8), hopeless(1)], 1)
    assert (found.stop, found.reason, found.step) == (False, Reason.GRACE, RUNGS[0])
    assert found.why == "8 of the 9 completed trials are there that it takes to judge the rung"
    assert decide(strict(min_completed=8), [*history(8), hopeless(1)], 1).stop


def test_it_steps_back_where_the_rung_says_nothing() -> None:
    trials = history(60, is_informative=False)
    found = decide(strict(), [*trials, hopeless(1)], 1)
    assert found.reason is Reason.UNRELIABLE
    assert "hardly ranks trials as they end: Kendall's tau" in found.why
    alike = [make_trial(10 + i, 100, (0.5, 0.5, 0.1 * i)) for i in range(8)]
    assert "all completed trials are equal in accuracy" in decide(strict(), [*alike, hopeless(1)], 1).why


def test_it_steps_back_where_an_objective_is_not_measured_at_rungs() -> None:
    loss = Objective(name="memorization", direction=Direction.MINIMIZE)
    chosen = replace(strict(), objectives=(ACCURACY, loss))
    found = decide(chosen, [*history(), hopeless(1)], 1)
    assert found.reason is Reason.UNMEASURED
    assert found.why.startswith("memorization is not measured at rungs")


def test_one_in_five_runs_to_its_end_all_the_same() -> None:
    found = [decide(strict(), [*history(), hopeless(number)], number) for number in range(10)]
    assert [item.stop for item in found] == [False, True, True, True, True] * 2
    assert {item.reason for item in found} == {Reason.CONTROL, Reason.RULE}
    assert all(item.rule_stops for item in found)
    assert "runs to its end to measure the rungs; else: so it is" in found[0].why


@pytest.mark.parametrize("caution", [{"min_completed": 4}, {"control_every": 1}])
def test_impossible_caution_is_refused(caution: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        Caution(**caution)


def test_none_stops_nothing() -> None:
    chosen = make_pruner("none", objectives=OBJECTIVES, fidelity=FIDELITY, rungs=RUNGS)
    assert chosen.rungs == ()
    assert not decide(chosen, [*history(), hopeless(1)], 1).stop
