import numpy as np
import pytest

from autopeft.exceptions import UnknownNameError
from autopeft.objectives import (
    COSTS,
    Direction,
    Objective,
    from_maximization,
    non_dominated_mask,
    resolve_objectives,
    to_maximization,
)

METRICS = {"accuracy": Direction.MAXIMIZE, "mae": Direction.MINIMIZE}


def test_metrics_and_costs_resolve_with_their_directions() -> None:
    quality, error, cost = resolve_objectives(["accuracy", "mae", "trainable_parameters"], METRICS)
    assert (quality.direction, error.direction) == (Direction.MAXIMIZE, Direction.MINIMIZE)
    assert cost is COSTS["trainable_parameters"]
    assert cost.is_known


def test_repeated_names_count_once() -> None:
    assert len(resolve_objectives(["accuracy", "accuracy"], METRICS)) == 1


def test_quality_is_the_first_metric() -> None:
    assert resolve_objectives(["quality", "accuracy"], METRICS) == resolve_objectives(["accuracy"], METRICS)


def test_rewards_resolve_by_the_name_they_are_asked_for_by() -> None:
    shine = Objective(name="shine", direction=Direction.MAXIMIZE, unit="lm")
    assert resolve_objectives(["quality", "mine.py:shine"], METRICS, {"mine.py:shine": shine})[1] is shine
    with pytest.raises(UnknownNameError, match="shine"):
        resolve_objectives(["shin"], METRICS, {"shine": shine})


def test_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean accuracy"):
        resolve_objectives(["acuracy"], METRICS)


def test_maximization_form_round_trips_and_keeps_the_pareto_set_under_a_flip() -> None:
    rng = np.random.default_rng(0)
    natural = rng.normal(size=(40, 2))
    up = Objective(name="a", direction=Direction.MAXIMIZE)
    down = Objective(name="b", direction=Direction.MINIMIZE)
    y = to_maximization(natural, (up, down))
    np.testing.assert_array_equal(from_maximization(y, (up, down)), natural)
    flipped = natural * np.array([1.0, -1.0])
    same = to_maximization(flipped, (up, Objective(name="b", direction=Direction.MAXIMIZE)))
    np.testing.assert_array_equal(non_dominated_mask(y), non_dominated_mask(same))
