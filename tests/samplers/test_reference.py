"""Oracle: the points written out."""

import math

import numpy as np
import pytest

from autopeft.objectives import Direction, Objective
from autopeft.samplers._reference import cheapest_that_counts, exact_reference, front_members, worst_of_front
from tests.samplers.problem import PARAMETERS


def test_the_reference_comes_from_the_front_not_from_a_collapsed_trial() -> None:
    values = np.array([[0.60, -4.0], [0.65, -5.0], [0.10, -4.5]])
    assert worst_of_front(values) == pytest.approx([0.60 - 0.1 * 0.05, -5.0 - 0.1 * 1.0])


def test_a_front_of_one_borrows_its_range_from_all_data() -> None:
    values = np.array([[0.65, -4.0], [0.60, -5.0], [0.55, -4.5]])
    assert worst_of_front(values) == pytest.approx([0.65 - 0.1 * 0.10, -4.0 - 0.1 * 1.0])
    assert worst_of_front(values[:1]) == pytest.approx([0.65 - 0.1, -4.0 - 0.1])


def test_cheaper_than_a_thirtieth_of_the_budget_is_no_better() -> None:
    """Otherwise the search chases configurations of a few hundred parameters on the logarithmic axis."""
    budget = math.log10(227_132)
    floor = cheapest_that_counts(budget)
    assert 10**-floor == pytest.approx(227_132 / 10**1.5)
    assert cheapest_that_counts(math.inf) == math.inf


def test_the_reference_of_a_cost_lies_beyond_the_budget_and_beyond_what_is_in_sight() -> None:
    values = np.array([[-4.0], [-5.0]])
    doubled = math.log10(2)
    assert exact_reference([PARAMETERS], values, 4.5) == pytest.approx([-5.0 - doubled])
    assert exact_reference([PARAMETERS], values, 5.5) == pytest.approx([-5.5 - doubled])
    assert exact_reference([PARAMETERS], values, math.inf) == pytest.approx([-5.0 - doubled])
    larger = Objective(name="trainable_parameters", direction=Direction.MAXIMIZE, is_known=True)
    assert exact_reference([larger], -values, 5.5) == pytest.approx([4.0 - doubled])


def test_members_of_the_front_come_best_first() -> None:
    values = np.array([[0.5, -4.0], [0.7, -5.0], [0.6, -6.0], [0.6, -4.5]])
    assert front_members(values) == [1, 3, 0]
