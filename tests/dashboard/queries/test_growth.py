from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.objectives import hypervolume, to_maximization
from autopeft.study import Study
from dashboard.queries import hypervolume_frame, is_rival, rival_band
from tests.dashboard.frames import frame_of, points
from tests.study.builders import make_spec, make_trial


@settings(deadline=None, max_examples=50)
@given(points)
def test_the_growing_hypervolume_is_that_of_every_prefix(values: list[tuple[float | None, int]]) -> None:
    """Oracle: the hypervolume of each prefix, computed anew."""
    measured = [(accuracy, cost) for accuracy, cost in values if accuracy is not None]
    study = Study(spec=make_spec(), trials=tuple(make_trial(i, a, c) for i, (a, c) in enumerate(measured)))
    growth = hypervolume_frame(frame_of(study), study.spec, reference=(-0.5, 8000.0))
    y = to_maximization(np.array(measured, dtype=float).reshape(-1, 2), study.spec.objectives)
    origin = to_maximization([(-0.5, 8000.0)], study.spec.objectives)[0]
    expected = [hypervolume(y[: i + 1], origin) for i in range(len(y))]
    assert growth["hypervolume"].tolist() == pytest.approx(expected)


def test_time_counts_from_the_first_start_of_the_search() -> None:
    study = Study(spec=make_spec(), trials=tuple(make_trial(i, 0.5 + i / 10, 100) for i in range(3)))
    growth = hypervolume_frame(frame_of(study), study.spec)
    assert growth["hours"].tolist() == [1.0, 2.0, 3.0]
    assert growth["number"].tolist() == [0, 1, 2]


def test_a_rival_is_the_same_search_at_random() -> None:
    mine = make_spec("mine", sampler="bayesian")
    assert is_rival(mine, make_spec("other", sampler="random", seed=3))
    assert not is_rival(mine, make_spec("other", sampler="bayesian"))
    assert not is_rival(mine, make_spec("other", sampler="random", budget=7))
    assert not is_rival(make_spec("mine"), make_spec("mine"))
    assert not is_rival(mine, replace(make_spec("other"), task={"name": "else"}))


def test_trials_that_were_stopped_or_failed_count_as_tried() -> None:
    study = Study(spec=make_spec(), trials=tuple(make_trial(i, a, 100) for i, a in enumerate((0.5, None, None, 0.6))))
    growth = hypervolume_frame(frame_of(study), study.spec)
    assert growth[["n_trials", "number"]].to_numpy().tolist() == [[1, 0], [4, 3]]


def curve(volumes: list[float], hours: list[float] | None = None) -> pd.DataFrame:
    n = list(range(1, len(volumes) + 1))
    return pd.DataFrame({"n_trials": n, "hours": hours or n, "hypervolume": volumes})


def test_the_band_covers_what_all_random_searches_reached() -> None:
    band = rival_band([curve(values) for values in ([1.0, 2.0, 9.0], [3.0, 4.0], [0.0, 8.0, 8.0])])
    assert band.to_numpy().tolist() == [[1, 0, 1, 3], [2, 2, 4, 8]]
    assert rival_band([]).empty
    assert rival_band([curve([])]).empty


def test_the_band_over_time_has_what_each_had_by_then() -> None:
    """Oracle: by hand; at half an hour only the first search has anything."""
    curves = [curve([1.0, 2.0, 5.0], [0.5, 2.0, 9.0]), curve([3.0, 4.0], [1.0, 2.5])]
    band = rival_band(curves, over="hours")
    assert band.columns.tolist() == ["hours", "low", "middle", "high"]
    assert band.to_numpy().tolist() == [[0.5, 0, 0.5, 1], [1, 1, 2, 3], [2, 2, 2.5, 3], [2.5, 2, 3, 4]]


@given(st.lists(st.lists(st.floats(0, 100), min_size=1, max_size=30), min_size=1, max_size=4))
def test_a_band_never_falls_and_stays_in_order(increments: list[list[float]]) -> None:
    curves = [curve(np.cumsum(item).tolist(), np.cumsum(np.ones(len(item))).tolist()) for item in increments]
    for over in ("n_trials", "hours"):
        band = rival_band(curves, over=over)
        assert (band["low"] <= band["middle"]).all()
        assert (band["middle"] <= band["high"]).all()
        assert band["low"].is_monotonic_increasing


def test_a_long_band_over_time_is_thinned_with_its_ends() -> None:
    times = [i / 100 for i in range(1, 3000)]
    band = rival_band([curve(times, times)], over="hours")
    assert len(band) == 400
    assert (band["hours"].iloc[0], band["hours"].iloc[-1]) == (times[0], times[-1])
