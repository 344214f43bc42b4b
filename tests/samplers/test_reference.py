"""Oracle: the points written out."""

import math

import numpy as np
import pytest

from autopeft.objectives import Direction, Objective
from autopeft.samplers._reference import cheapest_that_counts, exact_reference, front_members, worst_reached
from tests.samplers.problem import PARAMETERS


def test_the_reference_is_the_worst_of_all_that_was_reached() -> None:
    values = np.array([[0.60, -4.0], [0.65, -5.0], [0.10, -4.5]])
    assert worst_reached(values).tolist() == [0.10, -5.0]


def test_cheaper_than_a_thousandth_of_the_budget_is_no_better() -> None:
    """Otherwise the search chases configurations of a few dozen parameters on the logarithmic axis."""
    budget = math.log10(227_132)
    assert 10 ** -cheapest_that_counts(budget) == pytest.approx(227.132)
    assert cheapest_that_counts(math.inf) == math.inf


def test_the_reference_of_a_cost_lies_beyond_the_budget_and_beyond_what_is_in_sight() -> None:
    values = np.array([[-4.0], [-5.0]])
    margin = 0.05
    assert exact_reference([PARAMETERS], values, 4.5) == pytest.approx([-5.0 - margin])
    assert exact_reference([PARAMETERS], values, 5.5) == pytest.approx([-5.5 - margin])
    assert exact_reference([PARAMETERS], values, math.inf) == pytest.approx([-5.0 - margin])
    larger = Objective(name="trainable_parameters", direction=Direction.MAXIMIZE, is_known=True)
    assert exact_reference([larger], -values, 5.5) == pytest.approx([4.0 - margin])


def test_members_of_the_front_come_best_first() -> None:
    values = np.array([[0.5, -4.0], [0.7, -5.0], [0.6, -6.0], [0.6, -4.5]])
    assert front_members(values) == [1, 3, 0]
