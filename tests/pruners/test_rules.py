"""Oracle of the pareto rule: every pair of trials, with scipy's prediction of the end. Others: their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.objectives import Constraint
from autopeft.pruners._calibration import Ceiling
from autopeft.pruners._ranking import rank
from autopeft.pruners._rules import MedianRule, MoAshaRule, ParetoRule
from autopeft.pruners._values import RungTable
from autopeft.study import TrialState
from tests.pruners.simulated import FIDELITY, OBJECTIVES, RUNGS, make_trial, make_world

STEP = RUNGS[0]


def table_of(rows: list[tuple[int, float, float | None]]) -> RungTable:
    """Trials of (cost, score at the first rung, score at the end or None)."""
    trials = [
        make_trial(i, cost, (here,), state=TrialState.RUNNING)
        if end is None
        else make_trial(i, cost, (here, (here + end) / 2, end))
        for i, (cost, here, end) in enumerate(rows)
    ]
    return RungTable.of(trials, step=STEP, objectives=OBJECTIVES, fidelity=FIDELITY)


score = st.integers(0, 20).map(lambda value: 0.5 + value / 50)
done = st.lists(st.tuples(st.integers(1, 5), score, score), min_size=6, max_size=14)


@settings(deadline=None)
@given(done, st.integers(1, 5), score)
def test_pareto_stops_whose_best_end_is_dominated_by_brute_force(
    rows: list[tuple[int, float, float]], cost: int, here: float
) -> None:
    table = table_of([*rows, (cost, here, None)])
    ends = np.array([row[2] for row in rows])
    highest = Ceiling.fit(np.array([row[1] for row in rows]), ends, risk=ParetoRule().risk).at(here)
    expected = any(c <= cost and h >= here and e > highest for c, h, e in rows)
    assert ParetoRule().judge(table, len(rows)).stop == expected


@settings(deadline=None)
@given(done, st.integers(1, 5), score, st.integers(0, 20), st.integers(0, 4))
def test_a_worse_trial_is_stopped_where_a_better_one_is(
    rows: list[tuple[int, float, float]], cost: int, here: float, loss: int, surcharge: int
) -> None:
    """Monotone: lower at the rung or dearer, with the same others."""
    better = table_of([*rows, (cost, here, None)])
    worse = table_of([*rows, (cost + surcharge, here - loss / 50, None)])
    for rule in (ParetoRule(),):
        if rule.judge(better, len(rows)).stop:
            assert rule.judge(worse, len(rows)).stop


def test_pareto_says_whom_a_trial_cannot_beat() -> None:
    world = make_world(0, 10, noise=0.002)
    rows = [(100, float(row[0]), float(row[2])) for row in world.scores]
    verdict = ParetoRule().judge(table_of([*rows, (100, 0.5, None)]), 10)
    assert verdict.stop
    assert "it can reach accuracy 0." in verdict.why
    assert "and costs no more" in verdict.why
    cheap = ParetoRule().judge(table_of([*rows, (99, 0.5, None)]), 10)
    assert not cheap.stop
    assert "which no completed trial of its cost is better than" in cheap.why


@pytest.mark.parametrize(("here", "cost", "stop"), [(0.54, 100, True), (0.55, 100, False), (0.54, 50, False)])
def test_median_of_trials_of_similar_cost_or_less(here: float, cost: int, stop: bool) -> None:
    rows = [(cost, here, 0.9) for cost, here in ((100, 0.5), (90, 0.54), (120, 0.56), (80, 0.6), (1000, 0.99))]
    verdict = MedianRule().judge(table_of([*rows, (cost, here, None)]), 5)
    assert verdict.stop == stop
    assert ("only 0 trials of its cost" if cost == 50 else "the median of 4 trials") in verdict.why


def test_mo_asha_lets_the_best_third_go_on() -> None:
    world = make_world(3, 20)
    rows = [(int(cost), float(row[0]), None) for cost, row in zip(world.costs, world.scores, strict=True)]
    table = table_of(rows)
    values = np.column_stack([world.scores[:, 0], -np.log1p(world.costs)])
    order = rank((values - values.min(0)) / np.ptp(values, 0))
    going_on = [row for row in range(20) if not MoAshaRule().judge(table, row).stop]
    assert sorted(order[:6]) == going_on
    assert "of 20 trials at this rung, and 6 go on" in MoAshaRule().judge(table, 0).why


def test_mo_asha_stops_nobody_before_there_are_enough() -> None:
    table = table_of([(100, 0.9, None), (100, 0.5, None)])
    assert not any(MoAshaRule().judge(table, row).stop for row in range(2))


def test_who_breaks_a_constraint_is_nobodys_rival() -> None:
    world = make_world(0, 10, noise=0.002)
    trials = [make_trial(i, 100, row) for i, row in enumerate(world.scores)]
    trials.append(make_trial(10, 100, (0.5,), state=TrialState.RUNNING))

    def stops(*constraints: Constraint) -> bool:
        table = RungTable.of(trials, step=STEP, objectives=OBJECTIVES, fidelity=FIDELITY, constraints=constraints)
        return ParetoRule().judge(table, 10).stop

    assert stops()
    assert stops(Constraint(name="wall_time_s", upper=100), Constraint(name="export_class", allowed=("lora",)))
    assert not stops(Constraint(name="wall_time_s", upper=1))
    assert not stops(Constraint(name="peak_memory_bytes", upper=1))  # nobody is known to keep it
