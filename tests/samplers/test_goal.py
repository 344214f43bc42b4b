"""Oracles: the sampled acquisition function beside the closed one, and hand-made fronts."""

import math

import numpy as np
import pytest
from scipy import stats

from autopeft.objectives import Direction, Objective
from autopeft.samplers import _goal
from autopeft.samplers._encoding import Encoder
from autopeft.samplers._goal import Evidences, fit_default, make_goal
from autopeft.samplers._history import Evidence, History, Observation
from autopeft.samplers._known import KnownCosts, measured_objectives
from autopeft.samplers._points import Point, PointSource
from autopeft.samplers._sampled import SampledImprovement
from autopeft.samplers._surrogate import reproducible
from autopeft.study import TrialState
from tests.samplers.problem import (
    ACCURACY,
    FIDELITY,
    PARAMETERS,
    SECONDS,
    Problem,
    default_space,
    make_trial,
    small_space,
)

SPACE = small_space()
ENCODER = Encoder(SPACE)
LOG_BUDGET = math.log10(1 + SPACE.budget)


def observed(n: int, objectives: tuple[Objective, ...], *, seed: int = 0) -> list[Observation]:
    problem = Problem(SPACE, seed=seed)
    trials = [
        make_trial(i, point.configuration, SPACE, params=point.params, values=problem.measure(point.configuration))
        for i, point in enumerate(candidates(n, seed=seed))
    ]
    return list(History.of(trials, objectives=objectives, seed=0, fidelity=FIDELITY).observations)


def candidates(n: int, *, seed: int) -> list[Point]:
    return PointSource(SPACE).draw(np.random.default_rng(seed), n, ())


def goal_for(
    objectives: tuple[Objective, ...], known: list[Observation], outside: list[Observation] = (), **changes
) -> _goal.Goal:
    with reproducible(0):
        return make_goal(
            ENCODER,
            KnownCosts(SPACE, objectives),
            measured_objectives(objectives),
            Evidences(known=known, outside=outside, log_budget=LOG_BUDGET),
            seed=0,
            **changes,
        )


def test_the_sampled_goal_agrees_with_the_closed_form() -> None:
    """The one integrates over where the front is, the other takes its mean: the same ranking, nearly."""
    known = observed(30, (ACCURACY, PARAMETERS))
    closed = goal_for((ACCURACY, PARAMETERS), known)
    new = candidates(60, seed=7)
    with reproducible(0):
        exact = closed._exact
        sampled = SampledImprovement(
            closed.surrogates,
            ENCODER.encode(known),
            exact.values(known),
            reference=closed._reference,
            seed=0,
        )
        scores = sampled.score(ENCODER.encode(new), exact.values(new))
    assert stats.spearmanr(closed.score(new), scores).statistic > 0.95
    best, other = int(np.argmax(closed.score(new))), np.argsort(-scores)
    assert best in other[:5]


@pytest.mark.parametrize(
    ("objectives", "n_surrogates"),
    [
        ((ACCURACY,), 1),
        ((ACCURACY, PARAMETERS), 1),
        ((PARAMETERS, ACCURACY), 1),
        ((ACCURACY, SECONDS), 2),
        ((ACCURACY, PARAMETERS, SECONDS), 2),
        ((PARAMETERS,), 0),
    ],
)
def test_only_measured_objectives_are_modelled(objectives: tuple[Objective, ...], n_surrogates: int) -> None:
    fitted = []

    def spy(x: np.ndarray, y: np.ndarray, noise: np.ndarray):
        fitted.append(y)
        return fit_default(x, y, noise)

    known = observed(12, objectives)
    goal = goal_for(objectives, known, fit=spy)
    assert len(fitted) == n_surrogates
    new = candidates(8, seed=3)
    with reproducible(0):
        before = goal.score(new)
        goal.believe(new[:2])
        after = goal.score(new)
    assert before.shape == after.shape == (8,)
    assert np.isfinite(before).any()
    if n_surrogates:
        # What is on its way is worth less a second time.
        assert (after[:2] < before[:2]).all()


def test_with_nothing_to_learn_the_cheapest_wins() -> None:
    new = candidates(20, seed=3)
    scores = goal_for((PARAMETERS,), []).score(new)
    assert new[int(scores.argmax())].trainable_parameters == min(item.trainable_parameters for item in new)
    larger = Objective(name="trainable_parameters", direction=Direction.MAXIMIZE, is_known=True)
    scores = goal_for((larger,), []).score(new)
    assert new[int(scores.argmax())].trainable_parameters == max(item.trainable_parameters for item in new)


def test_what_was_reached_outside_the_space_is_reached() -> None:
    """A cheap and excellent configuration that no point can say takes the improvement from everything dearer."""
    known = observed(20, (ACCURACY, PARAMETERS))
    cheap = min(known, key=lambda item: item.trainable_parameters)
    outside = Observation(
        number=99,
        kind=cheap.kind,
        evidence=Evidence.MEASURED,
        configuration=cheap.configuration,
        params=None,
        trainable_parameters=0,
        values=(0.95,),
    )
    new = candidates(30, seed=3)
    free, beaten = goal_for((ACCURACY, PARAMETERS), known), goal_for((ACCURACY, PARAMETERS), known, [outside])
    assert (beaten.score(new) < free.score(new)).all()


def test_incumbents_are_the_predicted_front_best_first() -> None:
    known = observed(25, (ACCURACY, PARAMETERS))
    incumbents = goal_for((ACCURACY, PARAMETERS), known).incumbents
    costs = [item.trainable_parameters for item in incumbents]
    assert 1 < len(costs) < 25
    assert costs == sorted(costs, reverse=True)  # on a front the better one costs more


def test_pruned_trials_teach_but_are_no_incumbents() -> None:
    problem = Problem(SPACE, seed=0)
    points = candidates(14, seed=0)
    trials = [
        make_trial(i, p.configuration, SPACE, params=p.params, values=problem.measure(p.configuration))
        for i, p in enumerate(points)
    ]
    for i in range(4):
        configuration = points[i].configuration
        trials[i] = make_trial(i, configuration, SPACE, values=(0.99, 1.0), state=TrialState.PRUNED)
    trials[4] = make_trial(4, points[4].configuration, SPACE, state=TrialState.FAILED)
    history = History.of(trials, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY)
    known = [item for item in history.observations if item.evidence is not Evidence.FAILED]
    goal = goal_for((ACCURACY, PARAMETERS), known)
    assert len(known) == 13
    assert {item.number for item in goal.incumbents} <= set(range(5, 14))


def test_quality_at_the_full_budget_is_worth_something() -> None:
    """Two candidates predicted alike, one at the budget: neither has an improvement of zero."""
    space = default_space()
    encoder = Encoder(space)
    problem = Problem(space, seed=0)
    points = PointSource(space).draw(np.random.default_rng(0), 60, ())
    trials = [
        make_trial(i, p.configuration, space, params=p.params, values=problem.measure(p.configuration))
        for i, p in enumerate(sorted(points, key=lambda p: p.trainable_parameters)[:20])
    ]
    known = History.of(trials, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY).observations
    with reproducible(0):
        goal = make_goal(
            encoder,
            KnownCosts(space, (ACCURACY, PARAMETERS)),
            [ACCURACY],
            Evidences(known=known, log_budget=math.log10(1 + space.budget)),
            seed=0,
        )
        largest = max(points, key=lambda p: p.trainable_parameters)
        assert largest.trainable_parameters > 0.95 * space.budget
        assert np.isfinite(goal.score([largest]))[0]
