from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.objectives import COSTS
from dashboard.figures._crowd import inside, thinned
from tests.study.builders import ACCURACY

PARAMETERS = COSTS["trainable_parameters"]


def cloud(n: int, seed: int = 0) -> pd.DataFrame:
    """A crowd of three roles with a front and baselines in it."""
    rng = np.random.default_rng(seed)
    roles = rng.choice(["dominated", "pruned", "infeasible"], n, p=[0.6, 0.3, 0.1])
    roles[: n // 50] = "front"
    roles[n // 50 : n // 25] = "baseline"
    return pd.DataFrame(
        {
            "number": np.arange(n),
            "role": roles,
            "accuracy": rng.normal(0.8, 0.02, n),
            "trainable_parameters": np.round(10 ** rng.normal(5, 0.4, n)),
        }
    )


@given(st.integers(50, 3000), st.integers(1, 1500), st.integers(0, 5))
def test_a_thinned_crowd_is_a_part_of_it_with_front_and_baselines_whole(n: int, most: int, seed: int) -> None:
    points = cloud(n, seed)
    kept = [n - 1, n // 2]
    found = thinned(points, PARAMETERS, ACCURACY, kept=kept, most=most)
    assert found.equals(points[points["number"].isin(found["number"])]), "rows as they were, in their order"
    whole = set(points.loc[points["role"].isin(["front", "baseline"]), "number"]) | set(kept)
    assert whole <= set(found["number"])
    crowd = len(points) - len(whole)
    assert min(most, crowd) <= len(found) - len(whole) <= min(most + 3, crowd)
    before, after = (rows["role"].value_counts() for rows in (points, found))
    assert set(after.index) == set(before.index), "no kind vanishes"


def test_outline_and_lonely_points_stay() -> None:
    points = cloud(9000)
    points.loc[points.index[-3:], "role"] = "dominated"
    points.loc[points.index[-3:], ["accuracy", "trainable_parameters"]] = [[0.7, 1e5], [0.9, 1e4], [0.91, 1e6]]
    found = thinned(points, PARAMETERS, ACCURACY)
    assert set(points["number"].iloc[-3:]) <= set(found["number"])
    for name in ("accuracy", "trainable_parameters"):
        assert (found[name].min(), found[name].max()) == (points[name].min(), points[name].max())


def test_new_trials_move_few_of_those_drawn() -> None:
    """The picture of a search at work must not flicker."""
    points = cloud(9000)
    fewer = set(thinned(points.iloc[:-10], PARAMETERS, ACCURACY)["number"])
    more = set(thinned(points, PARAMETERS, ACCURACY)["number"])
    assert set(range(8990, 9000)) <= more, "the newest are there"
    assert len(fewer - more) <= 40


def test_a_box_holds_whatever_lies_in_it_drawn_or_not() -> None:
    """Oracle: a comparison of values."""
    points = cloud(5000)
    box = {"x": [3e4, 2e5], "y": [0.82, 0.79]}
    expected = points[points["trainable_parameters"].between(3e4, 2e5) & points["accuracy"].between(0.79, 0.82)]
    found = inside(points, {"box": [box]}, x=PARAMETERS, y=ACCURACY, budget=10**6)
    assert found == expected["number"].tolist()
    lasso = {"x": [3e4, 3e4, 2e5, 2e5], "y": [0.82, 0.79, 0.79, 0.82]}
    assert inside(points, {"lasso": [lasso]}, x=PARAMETERS, y=ACCURACY, budget=None) == found
    assert inside(points, {}, x=PARAMETERS, y=ACCURACY, budget=None) == []
    assert inside(points.iloc[:0], {"box": [box]}, x=PARAMETERS, y=ACCURACY, budget=None) == []


def test_a_lasso_is_straight_on_the_screen() -> None:
    """Oracle: the triangle below a straight line on the logarithmic axis, by its equation."""
    points = cloud(3000)
    lasso = {"x": [1e4, 1e6, 1e4], "y": [0.7, 0.7, 0.9]}
    found = inside(points, {"lasso": [lasso], "box": []}, x=PARAMETERS, y=ACCURACY, budget=None)
    exponent = np.log10(points["trainable_parameters"])
    below = (exponent > 4) & (points["accuracy"] > 0.7) & (points["accuracy"] < 0.9 - 0.1 * (exponent - 4))
    assert found == points.loc[below, "number"].tolist()
    assert 100 < len(found) < 2900


def test_trials_without_parameters_are_where_they_are_drawn() -> None:
    """They stand left of the smallest power of ten, and a box drawn there holds them."""
    points = pd.DataFrame(
        {
            "number": [1, 2],
            "role": "baseline",
            "accuracy": [0.5, 0.6],
            "trainable_parameters": [0, 5000],
        }
    )
    left = 10 ** (math.floor(math.log10(5000)) - 0.4)
    box = {"x": [0.8 * left, 1.2 * left], "y": [0, 1]}
    assert inside(points, {"box": [box]}, x=PARAMETERS, y=ACCURACY, budget=None) == [1]
    whole = {"x": [1e-9, 1e9], "y": [0, 1]}
    assert inside(points, {"box": [whole]}, x=PARAMETERS, y=ACCURACY, budget=None) == [1, 2]


@pytest.mark.parametrize("values", [[0.5] * 900, [0.0] * 900])
def test_points_that_are_all_alike_are_thinned(values: list[float]) -> None:
    points = cloud(900).assign(accuracy=values, trainable_parameters=100)
    assert len(thinned(points, PARAMETERS, ACCURACY, most=50)) < 150
