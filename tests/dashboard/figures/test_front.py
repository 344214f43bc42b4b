from __future__ import annotations

import json
import math

import pandas as pd
import plotly.graph_objects as go
import pytest

from autopeft.objectives import COSTS
from autopeft.store import StudyReader
from dashboard.figures import MOST_DRAWN, Marks, drawn_points, front_figure, front_words, n_outside
from dashboard.queries import add_roles, seed_intervals, trials_frame
from tests.dashboard.studies import HOSTILE, spec
from tests.study.builders import ACCURACY

PARAMETERS = COSTS["trainable_parameters"]
TIME = COSTS["wall_time_s"]


@pytest.fixture(scope="module")
def frame(full_url: str) -> pd.DataFrame:
    with StudyReader(full_url) as reader:
        return add_roles(trials_frame(reader, "study", ["accuracy", "wall_time_s"]), spec())


def traces(figure: go.Figure) -> dict[str, object]:
    return {trace.name: trace for trace in figure.data if trace.name}


def test_every_point_carries_its_trial(frame: pd.DataFrame) -> None:
    """Oracle: the roles in the frame."""
    figure = front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(budget=4000))
    drawn = [number for trace in figure.data for number in (trace.customdata if trace.customdata is not None else ())]
    assert sorted(drawn) == frame.loc[frame["role"].notna(), "number"].tolist()


def test_kinds_of_points_differ_by_symbol_and_by_color_name(frame: pd.DataFrame) -> None:
    found = traces(front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(recommended=5, knee=3, selected=2)))
    symbols = [trace.marker.symbol for trace in found.values()]  # type: ignore[attr-defined]
    assert len(found) == 8
    assert len(set(symbols) - {"circle-open"}) == len([item for item in symbols if item != "circle-open"])


def test_no_parameters_stand_left_on_the_logarithmic_axis(frame: pd.DataFrame) -> None:
    figure = front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(budget=4000))
    baselines = traces(figure)["baseline"]
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.ticktext[0] == "0"
    assert baselines.x[0] == figure.layout.xaxis.tickvals[0]  # type: ignore[attr-defined]
    assert 0 < baselines.x[0] < 100  # type: ignore[attr-defined]
    low, high = figure.layout.xaxis.range
    assert low < math.log10(baselines.x[0])  # type: ignore[attr-defined]
    assert high > math.log10(9000)


def test_the_budget_is_a_line_where_parameters_are_an_axis(frame: pd.DataFrame) -> None:
    across = front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(budget=4000))
    assert across.layout.shapes[0].x0 == 4000
    assert across.layout.annotations[0].text == "budget 4k"
    up = front_figure(frame, x=TIME, y=PARAMETERS, marks=Marks(budget=4000))
    assert up.layout.shapes[0].y0 == 4000
    assert not front_figure(frame, x=TIME, y=ACCURACY, marks=Marks(budget=4000)).layout.shapes


def test_hovering_tells_the_configuration_in_words_as_text(frame: pd.DataFrame) -> None:
    marks = Marks(words={2: f"lora 4 {HOSTILE}"}, reasons={2: "because"})
    figure = front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=marks)
    everything = json.dumps(figure.to_plotly_json(), default=str)
    assert "<script" not in everything
    assert "<b>bold" not in everything
    text = traces(figure)["front"].hovertext[0]  # type: ignore[attr-defined]
    assert "lora 4" in text
    assert "because" in text
    assert "accuracy: 0.5000" in text
    assert "trainable parameters: 100" in text
    assert "stopped after 25 %" in traces(figure)["stopped early (at its last rung)"].hovertext[0]  # type: ignore[attr-defined]


def test_what_is_hidden_is_not_drawn(frame: pd.DataFrame) -> None:
    figure = front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(), hidden=["baseline", "pruned"])
    assert {"front", "dominated"} <= set(traces(figure))
    assert not {"baseline", "stopped early (at its last rung)"} & set(traces(figure))


def test_intervals_stand_at_the_mean_over_seeds(frame: pd.DataFrame) -> None:
    intervals = seed_intervals(frame, "accuracy")
    figure = front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(), intervals=intervals)
    trace = traces(figure)["mean over further seeds, 95 % interval"]
    assert list(trace.y) == pytest.approx([0.72])  # type: ignore[attr-defined]
    assert list(trace.x) == [2000]  # type: ignore[attr-defined]


def test_axes_have_names_units_and_the_better_way(frame: pd.DataFrame) -> None:
    figure = front_figure(frame, x=TIME, y=ACCURACY, marks=Marks())
    assert figure.layout.xaxis.title.text == "training time (s), less is better"
    assert figure.layout.yaxis.title.text == "accuracy, more is better"


def test_nothing_to_draw_is_said(frame: pd.DataFrame) -> None:
    for rows in (frame.iloc[:0], frame[frame["state"] == "FAILED"]):
        figure = front_figure(rows, x=PARAMETERS, y=ACCURACY, marks=Marks(budget=4000))
        assert "No trial" in figure.layout.annotations[0].text
        assert "no trials" in front_words(rows, x=PARAMETERS, y=ACCURACY, marks=Marks())


def test_the_picture_in_words(frame: pd.DataFrame) -> None:
    text = front_words(frame, x=PARAMETERS, y=ACCURACY, marks=Marks(budget=4000, recommended=5, knee=3))
    assert "3 front" in text
    assert "2 baseline" in text
    assert "Recommended: trial 5, accuracy 0.7500, trainable parameters 2,000." in text
    assert "4,000 trainable parameters" in text


def crowded(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials, and thousands of dominated ones beside them."""
    many = pd.concat([frame[frame["role"] == "dominated"]] * 3000, ignore_index=True)
    many["number"] = range(1000, 1000 + len(many))
    return pd.concat([many, frame], ignore_index=True)


@pytest.mark.parametrize(("every", "kind"), [(False, "scatter"), (True, "scattergl")])
def test_a_crowd_shares_one_pattern_of_text(frame: pd.DataFrame, every: bool, kind: str) -> None:
    both = crowded(frame)
    n = int((both["role"] == "dominated").sum())
    figure = front_figure(both, x=PARAMETERS, y=ACCURACY, marks=Marks(words={4: "lora 4"}, selected=4), every=every)
    crowd, told = (trace for trace in figure.data if trace.name == "dominated")
    assert (crowd.type, told.type) == (kind, "scatter")
    assert len(crowd.customdata) == n - 1 if every else MOST_DRAWN - 50 < len(crowd.customdata) <= MOST_DRAWN
    assert "%{customdata}" in crowd.hovertemplate
    assert told.customdata == (4,)
    assert "lora 4" in told.hovertext[0]
    assert (crowd.showlegend, crowd.legendgroup) == (False, told.legendgroup)
    assert crowd.marker.size == told.marker.size


def test_whatever_is_pointed_out_is_drawn(frame: pd.DataFrame) -> None:
    """Oracle: the frame; the crowd is thinned, its axes are those of all."""
    both = crowded(frame)
    low = both["number"] == 1234
    both.loc[low, "accuracy"] = -3.0
    marks = Marks(budget=4000, recommended=5, knee=3, selected=2345, reasons={1500: "because"})
    figure = front_figure(both, x=PARAMETERS, y=ACCURACY, marks=marks)
    drawn = {number for trace in figure.data for number in (trace.customdata if trace.customdata is not None else ())}
    whole = set(both.loc[both["role"].isin(["front", "baseline"]), "number"])
    assert drawn >= {*whole, 5, 3, 2345, 1500, 1234}
    assert len(drawn) < 1.1 * MOST_DRAWN
    rows, n = drawn_points(both, x=PARAMETERS, y=ACCURACY, marks=marks)
    assert set(rows["number"]) == drawn
    assert n == int(both["role"].notna().sum())
    outside = ~both.loc[both["role"].notna(), "accuracy"].between(*figure.layout.yaxis.range)
    assert n_outside(both, x=PARAMETERS, y=ACCURACY) == int(outside.sum()) == 2, "the worst, and one stopped early"


def test_points_outside_are_counted_as_the_picture_leaves_them(frame: pd.DataFrame) -> None:
    """Oracle: the range of the drawn axis."""
    complete = frame[frame["role"] == "dominated"].iloc[[0] * 9].assign(number=range(100, 109))
    complete["accuracy"] = [0.6 + i / 100 for i in range(9)]
    low = frame[frame["role"] == "pruned"].assign(accuracy=-3.0)
    rows = pd.concat([complete, low], ignore_index=True)
    figure = front_figure(rows, x=PARAMETERS, y=ACCURACY, marks=Marks())
    start, end = figure.layout.yaxis.range
    assert n_outside(rows, x=PARAMETERS, y=ACCURACY) == 1
    assert start < 0.6 < 0.68 < end
    assert n_outside(rows, x=PARAMETERS, y=ACCURACY, hidden=["pruned"]) == 0
    assert n_outside(rows.iloc[:0], x=PARAMETERS, y=ACCURACY) == 0
    assert front_figure(frame, x=PARAMETERS, y=ACCURACY, marks=Marks()).layout.yaxis.range is None
