"""Oracle: the space's own count, and logarithms written out."""

import numpy as np
import pytest

from autopeft.configuration import KNOWN_COSTS
from autopeft.objectives import Direction, Objective
from autopeft.samplers._known import (
    KnownCosts,
    exact_objectives,
    known_cost,
    logarithm,
    measured_objectives,
)
from autopeft.samplers._points import PointSource
from tests.samplers.problem import ACCURACY, PARAMETERS, SECONDS, small_space

SPACE = small_space()
OBJECTIVES = (ACCURACY, SECONDS, PARAMETERS)
LARGER = Objective(name="trainable_parameters", direction=Direction.MAXIMIZE, is_known=True)


def test_objectives_are_either_exact_or_measured() -> None:
    assert exact_objectives(OBJECTIVES) == [PARAMETERS]
    assert measured_objectives(OBJECTIVES) == [ACCURACY, SECONDS]
    unforeseen = Objective(name="unforeseen", direction=Direction.MINIMIZE, is_known=True)
    assert measured_objectives((unforeseen,)) == [unforeseen]  # no closed form here: learn it instead


def test_costs_are_logarithms_with_a_sign() -> None:
    assert logarithm(9_999, PARAMETERS) == pytest.approx(-4.0)
    assert logarithm(9_999, LARGER) == pytest.approx(4.0)
    assert logarithm(0, PARAMETERS) == 0.0


@pytest.mark.parametrize("name", sorted(KNOWN_COSTS))
def test_what_a_trial_says_is_what_the_closed_form_says(name: str) -> None:
    for point in PointSource(SPACE).draw(np.random.default_rng(0), 5, ()):
        assert known_cost(name, point, SPACE) == KNOWN_COSTS[name](
            point.configuration, SPACE.shapes, SPACE.module_types
        )


def test_values_stand_in_the_order_of_the_exact_objectives() -> None:
    points = PointSource(SPACE).draw(np.random.default_rng(0), 3, ())
    values = KnownCosts(SPACE, (ACCURACY, PARAMETERS)).values(points)
    assert values[:, 0] == pytest.approx([-np.log10(1 + point.trainable_parameters) for point in points])
    assert KnownCosts(SPACE, (ACCURACY,)).values(points).shape == (3, 0)
