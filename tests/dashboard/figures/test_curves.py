from __future__ import annotations

import pandas as pd

from dashboard.figures import curves_figure, curves_words
from tests.study.builders import ACCURACY

CURVES = pd.DataFrame(
    [(1, 10, 1.0, 0.2), (1, 20, 2.0, 0.4), (2, 10, 1.0, 0.3), (3, 10, 1.0, 0.1)],
    columns=["number", "step", "epoch", "value"],
)
STATES = {1: "COMPLETE", 2: "PRUNED", 3: "FAILED"}


def test_curves_differ_without_color_and_say_why_they_end() -> None:
    figure = curves_figure(CURVES, STATES, ACCURACY)
    assert [trace.name for trace in figure.data] == ["trial 1", "trial 2 (stopped early)", "trial 3 (failed)"]
    assert list(figure.data[0].y) == [0.2, 0.4]
    assert [trace.marker.symbol[-1] for trace in figure.data] == ["circle", "triangle-down", "x"]
    many = pd.concat([CURVES[CURVES["number"] == 1].assign(number=i) for i in range(12)])
    looks = {(t.line.color, t.line.dash, t.marker.symbol[0]) for t in curves_figure(many, {}, ACCURACY).data}
    assert len(looks) == 12
    assert figure.layout.xaxis.title.text == "optimizer steps"


def test_rungs_are_lines_across() -> None:
    figure = curves_figure(CURVES, STATES, ACCURACY, rungs=[5, 15])
    assert [shape.x0 for shape in figure.layout.shapes] == [5, 15]


def test_curves_in_words() -> None:
    text = curves_words(CURVES, STATES, ACCURACY)
    assert "trial 1 from 0.2000 to 0.4000 after 20 steps;" in text
    assert "trial 2 from 0.3000 to 0.3000 after 10 steps, stopped early" in text


def test_no_curve_is_said() -> None:
    empty = CURVES.iloc[:0]
    assert "No learning curve" in curves_figure(empty, {}, ACCURACY).layout.annotations[0].text
    assert "No learning curve" in curves_words(empty, {}, ACCURACY)
