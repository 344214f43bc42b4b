from __future__ import annotations

import pandas as pd
import pytest

from autopeft.objectives import COSTS
from dashboard.figures._axes import Place, focus
from tests.study.builders import ACCURACY

TIME = COSTS["wall_time_s"]


def points(values: list[float], roles: list[str] | None = None, name: str = "accuracy") -> pd.DataFrame:
    return pd.DataFrame({"number": range(len(values)), "role": roles or ["dominated"] * len(values), name: values})


GOOD = [0.50, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57]


def test_what_is_far_worse_is_left_outside() -> None:
    """Oracle: by hand; the quarters are 0.52 and 0.55, the fence stands at 0.47."""
    found = focus(points([*GOOD, 0.1]), ACCURACY, None)
    assert found == pytest.approx((0.50 - 0.06 * 0.07, 0.57 + 0.06 * 0.07))
    stopped = focus(points([*GOOD, 0.2, 0.1, 0.3], ["dominated"] * 8 + ["pruned"] * 3), ACCURACY, None)
    assert stopped == pytest.approx(found)


def test_where_less_is_better_the_other_end_is_left_outside() -> None:
    found = focus(points([*[10 + value for value in GOOD], 90.0], name="wall_time_s"), TIME, None)
    assert found is not None
    assert found[0] < 10.5
    assert 10.57 < found[1] < 11


def test_nothing_is_left_outside_without_need() -> None:
    assert focus(points(GOOD), ACCURACY, None) is None
    assert focus(points([*GOOD, 0.49]), ACCURACY, None) is None, "too near to save room"
    assert focus(points([0.5] * 8 + [0.1]), ACCURACY, None) is None, "nothing but one value would be left"
    assert focus(points([0.5, 0.1]), ACCURACY, None) is None, "too few to say what is usual"
    assert focus(points([0.1] * 9, ["pruned"] * 9), ACCURACY, None) is None


def test_the_front_and_its_intervals_are_always_inside() -> None:
    members = focus(points([*GOOD, 0.1, 0.01], ["dominated"] * 8 + ["front", "pruned"]), ACCURACY, None)
    assert members is None or members[0] <= 0.1
    intervals = pd.DataFrame({"number": [0], "mean": [0.5], "low": [0.4], "high": [0.6], "n_seeds": [3]})
    found = focus(points([*GOOD, 0.01]), ACCURACY, intervals)
    assert found is not None
    assert found[0] < 0.4
    assert found[1] > 0.6


def test_places_on_a_logarithmic_axis_leave_room_for_nothing_at_all() -> None:
    place = Place(pd.Series([0, 100, 10_000]), COSTS["trainable_parameters"], 20_000)
    assert place.is_log
    assert place(pd.Series([0, 100])).tolist() == [place.floor, 100]
    assert place.axis["ticktext"] == ["0", "100", "1k", "10k"]
    assert not Place(pd.Series([0.5, 0.6]), ACCURACY, None).is_log
