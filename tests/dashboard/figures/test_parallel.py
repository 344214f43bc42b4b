from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from autopeft.objectives import COSTS
from dashboard.figures import Parallel, brushed, parallel_figure, parallel_of, parallel_words, passing
from tests.dashboard.studies import HOSTILE
from tests.study.builders import ACCURACY

POINTS = pd.DataFrame(
    {
        "number": [1, 2, 3],
        "rank": [1, 8, 64],
        "gate": [True, False, True],
        "profile": ["flat", None, HOSTILE],
        "size": [None, 3, 40],
        "same": [1, 1, 1],
    }
)
VALUES = {1: 0.5, 2: 0.7, 3: 0.6}


@pytest.fixture
def parallel() -> Parallel:
    return parallel_of(POINTS, VALUES, ACCURACY)


def lines(figure: go.Figure) -> list[Any]:
    """The traces that hold trials."""
    return [trace for trace in figure.data if trace.customdata is not None]


def test_every_varied_parameter_is_an_axis(parallel: Parallel) -> None:
    axes = {item.name: item for item in parallel.axes}
    assert list(axes) == ["rank", "gate", "profile", "size", "accuracy"]
    assert list(axes["rank"].places) == pytest.approx([0, 0.903, 1.806], abs=1e-3), "a wide range by logarithm"
    assert axes["rank"].texts == ("1", "3", "8", "23", "64"), "whole numbers have whole places"
    assert axes["gate"].texts == ("no", "yes")
    assert axes["profile"].texts[0] == "off"
    assert axes["size"].texts == ("off", "3", "40")
    assert list(parallel.quality) == [0.5, 0.7, 0.6]
    assert list(parallel_of(POINTS, VALUES, COSTS["wall_time_s"]).quality) == [-0.5, -0.7, -0.6]


def test_lines_go_through_their_places_the_best_above(parallel: Parallel) -> None:
    """Oracle: places by hand, from 0 at an axis' low end to 1 at its high end."""
    figure = parallel_figure(parallel, [1, 2, 3])
    found = {int(trace.customdata[0]): trace for trace in lines(figure)}
    assert list(found) == [1, 3, 2], "drawn from the worst to the best"
    for number, rank, size, accuracy in ((1, 0, 0, 0), (2, 0.5, 0.5, 1), (3, 1, 1, 0.5)):
        y = found[number].y
        assert (y[0], y[4]) == pytest.approx((rank, accuracy), abs=1e-3)
        assert y[3] == pytest.approx(size, abs=0.06)
        assert np.isnan(y[5]), "lines of one color do not hang together"
        assert list(found[number].x[:5]) == [0, 1, 2, 3, 4]
    assert 0.9 < found[3].y[1] < 1.1
    assert found[1].y[1] < found[3].y[1], "lines at one word are spread"
    assert list(figure.layout.xaxis.ticktext) == ["rank", "gate", "profile", "size", "accuracy"]
    assert "<script" not in json.dumps(figure.to_plotly_json(), default=str)
    assert len({trace.line.color for trace in found.values()}) == 3


def test_a_brush_keeps_what_passes(parallel: Parallel) -> None:
    assert passing(parallel, {}).all()
    # On the axis of ranks from the middle up, on that of gates around its upper end.
    upper = brushed(parallel, [{"x": [-0.1, 0.2], "y": [1.02, 0.45]}])
    assert list(upper) == ["rank"]
    assert list(passing(parallel, upper)) == [False, True, True]
    yes = brushed(parallel, [{"x": [1.1, 0.9], "y": [0.97, 1.05]}])
    assert list(passing(parallel, yes)) == [True, False, True]
    assert list(passing(parallel, {**upper, **yes})) == [False, False, True]
    assert passing(parallel, {"gone": (0.0, 1.0)}).all(), "an axis that is not there asks for nothing"


def test_some_of_the_lines_at_a_word_mean_the_word(parallel: Parallel) -> None:
    some = brushed(parallel, [{"x": [0.9, 1.1], "y": [0.01, 0.05]}])
    assert list(passing(parallel, some)) == [False, True, False]


def test_a_drag_without_width_is_for_the_nearest_axis(parallel: Parallel) -> None:
    path = {"x": [0.2, 0.2, 0.2, 0.2], "y": [0.4, 0.6, 0.6, 0.4]}
    assert list(passing(parallel, brushed(parallel, [path]))) == [False, True, False]
    assert list(brushed(parallel, [{"x": [-9, -8], "y": [0, 1]}, {"x": [8, 9], "y": [0, 1]}])) == ["rank", "accuracy"]
    assert list(brushed(parallel, [{"x": [-1, 9], "y": [0, 1]}])) == [item.name for item in parallel.axes]


def test_what_does_not_pass_is_faint_and_the_brush_is_marked(parallel: Parallel) -> None:
    brush = brushed(parallel, [{"x": [-0.1, 0.2], "y": [0.45, 3]}])
    figure = parallel_figure(parallel, [1, 2, 3], passed=[2, 3], brush=brush)
    assert sorted(int(trace.customdata[0]) for trace in lines(figure)) == [2, 3]
    assert figure.data[0].hoverinfo == "skip"
    assert list(figure.data[0].y[:1]) == [0]
    (shape,) = figure.layout.shapes
    assert (shape.x0 + shape.x1, shape.y0, shape.y1) == pytest.approx((0, 0.45, 1))
    assert not parallel_figure(parallel, [1, 2]).layout.shapes
    assert lines(parallel_figure(parallel, [1], passed=[])) == []


def test_few_paths_for_many_lines() -> None:
    """A browser takes a path in a moment, and a thousand of them in seconds."""
    rng = np.random.default_rng(0)
    points = pd.DataFrame({"number": range(500), "rank": rng.random(500), "scale": rng.random(500)})
    parallel = parallel_of(points, dict(enumerate(rng.random(500))), ACCURACY)
    figure = parallel_figure(parallel, range(300))
    assert len(lines(figure)) <= 8
    drawn = {int(number) for trace in lines(figure) for number in trace.customdata}
    assert drawn == set(range(300))


def test_too_little_for_lines_is_said() -> None:
    for points in (POINTS.iloc[:1], POINTS.iloc[:0], POINTS[["number", "same"]]):
        parallel = parallel_of(points, {1: 0.5, 2: 0.6}, ACCURACY)
        assert parallel_figure(parallel, [1, 2]).layout.annotations
        assert brushed(parallel, [{"x": [0, 1], "y": [0, 1]}]) == {}
    assert "3 trials" in parallel_words(3, ACCURACY)


def test_trials_of_equal_value_have_lines() -> None:
    parallel = parallel_of(POINTS, dict.fromkeys(VALUES, 0.5), ACCURACY)
    assert sum(len(set(trace.customdata)) for trace in lines(parallel_figure(parallel, [1, 2, 3]))) == 3
