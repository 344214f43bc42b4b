import math

import numpy as np
import pytest

from autopeft.exceptions import BudgetError, UnknownNameError, UsageError
from autopeft.integrations import bind
from autopeft.integrations._foreign import foreign_trial, named_objectives, point_of
from autopeft.objectives import COSTS, Direction
from autopeft.samplers._history import Evidence, History
from autopeft.study import TrialState
from tests.samplers.problem import small_space

SPACE = small_space()
POINT = SPACE.sample(np.random.default_rng(0))
BOTH = named_objectives(("accuracy", "trainable_parameters"), (Direction.MAXIMIZE, Direction.MINIMIZE))


def evidence(**changes: object) -> Evidence | None:
    from autopeft.integrations._foreign import FIDELITY

    first = foreign_trial(0, POINT, SPACE, seed=0, state=TrialState.COMPLETE, values={"accuracy": 0.5})
    second = foreign_trial(1, POINT, SPACE, seed=0, **changes)
    history = History.of([first, second], objectives=BOTH, seed=0, fidelity=FIDELITY)
    return next((item.evidence for item in history.observations if item.number == 1), None)


def test_the_exact_cost_is_our_own_objective() -> None:
    assert BOTH[1] == COSTS["trainable_parameters"]
    assert not BOTH[0].is_known


def test_a_name_per_objective() -> None:
    with pytest.raises(UsageError, match="got 1 \\(accuracy\\) for 2"):
        named_objectives(("accuracy",), (Direction.MAXIMIZE, Direction.MINIMIZE))
    with pytest.raises(UsageError, match="must differ, but got loss, loss"):
        named_objectives(("loss", "loss"), (Direction.MINIMIZE, Direction.MINIMIZE))


def test_foreign_and_inactive_parameters_are_dropped() -> None:
    silent = {item.name: item.values[0] for item in SPACE.parameters if item.name not in POINT and item.values}
    assert point_of(SPACE, {**silent, **POINT, "weight_decay": 0.1}) == POINT


def test_a_point_with_a_missing_or_wrong_value_is_none() -> None:
    assert point_of(SPACE, {name: value for name, value in POINT.items() if name != "rate"}) is None
    assert point_of(SPACE, {**POINT, "rate": 3.0}) is None


def test_a_point_that_tunes_nothing_is_none() -> None:
    nothing = {"lora": False, "adapter": False, "rate": 0.001, **{f"layer_{i}": True for i in range(3)}}
    assert SPACE.contains(nothing)
    assert point_of(SPACE, nothing) is None


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_are_a_divergence(value: float) -> None:
    trial = foreign_trial(0, POINT, SPACE, seed=0, state=TrialState.COMPLETE, values={"accuracy": value})
    assert trial.state is TrialState.FAILED
    assert trial.failure is not None
    assert trial.failure.reason == "divergence"


def test_states_become_evidence() -> None:
    assert evidence(state=TrialState.COMPLETE, values={"accuracy": 0.7}) is Evidence.MEASURED
    assert evidence(state=TrialState.PRUNED, values={"accuracy": 0.7}) is Evidence.PRUNED
    assert evidence(state=TrialState.RUNNING) is Evidence.PENDING
    assert evidence(state=TrialState.FAILED) is None
    assert evidence(state=TrialState.FAILED, reason="divergence") is Evidence.FAILED


def test_the_exact_cost_that_was_told_is_not_believed() -> None:
    told = {"accuracy": 0.7, "trainable_parameters": 3.0}
    trial = foreign_trial(0, POINT, SPACE, seed=0, state=TrialState.COMPLETE, values=told)
    assert trial.value("trainable_parameters") == SPACE.parameter_count(SPACE.compile(POINT)) != 3.0


def test_bind_knows_names_and_budgets() -> None:
    space = bind("default", backbone="minilm", budget="1%")
    assert space.budget == space.shapes.parameters // 100
    assert space.shapes.n_layers == 6
    with pytest.raises(UnknownNameError, match="search space"):
        bind("defualt")
    with pytest.raises(BudgetError):
        bind(budget="1")
