from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from autopeft.store import StudyReader
from dashboard.queries import importance, params_frame
from dashboard.queries._insight import encoded


def made(n: int, seed: int = 0) -> tuple[pd.DataFrame, dict[int, float]]:
    """Points whose value depends on `rank` alone; `gate` and `profile` are noise, `constant` never varies."""
    rng = np.random.default_rng(seed)
    points = pd.DataFrame(
        {
            "number": range(n),
            "rank": rng.integers(1, 64, n),
            "gate": rng.random(n) < 0.5,
            "profile": rng.choice(["flat", "triangle", None], n),
            "constant": 3,
        }
    )
    values = {int(i): float(np.log(rank)) for i, rank in zip(points["number"], points["rank"], strict=True)}
    return points, values


def test_the_parameter_that_matters_is_found_and_reliable() -> None:
    found = importance(*made(120))
    assert found.frame["parameter"].tolist()[0] == "rank"
    assert found.frame["importance"].iloc[0] > 0.9
    assert found.frame["importance"].sum() == pytest.approx(1)
    assert set(found.frame["parameter"]) == {"rank", "gate", "profile"}
    assert found.explained is not None
    assert found.explained > 0.8
    assert found.doubt is None
    assert importance(*made(120)).frame.equals(found.frame), "the same every time"


def test_noise_is_not_reliable() -> None:
    points, values = made(120)
    rng = np.random.default_rng(1)
    found = importance(points, {number: float(rng.normal()) for number in values})
    assert found.doubt is not None
    assert "explains" in found.doubt


def test_few_trials_are_not_reliable() -> None:
    found = importance(*made(14))
    assert found.doubt is not None
    assert "only 14 trials" in found.doubt
    assert importance(*made(5)).frame.empty
    assert importance(*made(5)).doubt == "only 5 trials"


def test_nothing_varied() -> None:
    points, values = made(30)
    assert importance(points[["number", "constant"]], values).doubt == "no parameter was varied"
    assert importance(points, dict.fromkeys(values, 0.5)).doubt == "all trials have the same value"
    assert importance(points.iloc[:0], {}).frame.empty


def test_parameters_as_numbers() -> None:
    assert encoded(pd.Series([1, 10, 100, None], dtype=object)).tolist() == pytest.approx([0, 1, 2, -0.2])
    assert encoded(pd.Series([True, False, None], dtype=object)).tolist() == pytest.approx([1, 0, -0.1])
    assert encoded(pd.Series(["b", "a", None], dtype=object)).tolist() == [1, 0, -1]


def test_points_come_by_trial(full_url: str) -> None:
    """Oracle: the fixture's params; baselines have none."""
    with StudyReader(full_url) as reader:
        found = params_frame(reader, "study", range(20))
    assert found["number"].tolist()[:3] == [2, 3, 4]
    assert found["rank"].tolist()[:3] == [1, 2, 3]
    assert params_frame(reader, "study", []).columns.tolist() == ["number"]
