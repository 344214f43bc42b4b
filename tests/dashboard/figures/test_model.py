from __future__ import annotations

import json

import pandas as pd
import pytest

from dashboard.figures import (
    fidelity_figure,
    fidelity_words,
    left_out_figure,
    quality_figure,
    quality_words,
    surrogate_figure,
)
from tests.dashboard.studies import HOSTILE
from tests.study.builders import ACCURACY


def test_expected_against_measured() -> None:
    frame = pd.DataFrame([(4, 0.5, 0.4, 0.6, 0.55)], columns=["number", "predicted", "low", "high", "measured"])
    figure = surrogate_figure(frame, ACCURACY)
    assert list(figure.data[0].x) == list(figure.data[0].y) == [0.4, 0.6]
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([0.5], [0.55])
    assert "not measured" in surrogate_figure(frame.iloc[:0], ACCURACY).layout.annotations[0].text


def test_expected_from_all_others_against_measured() -> None:
    frame = pd.DataFrame(
        [(4, 0.5, 0.4, 0.65, 0.55, False), (5, 0.8, 0.7, 0.9, 0.3, True), (6, 0.6, 0.5, 0.7, 0.6, False)],
        columns=["number", "predicted", "low", "high", "measured", "is_extrapolated"],
    )
    figure = left_out_figure(frame, ACCURACY)
    line, ended, stopped = figure.data
    assert list(line.x) == list(line.y) == [0.3, 0.9]
    assert (list(ended.x), list(ended.y), list(ended.customdata)) == ([0.5, 0.6], [0.55, 0.6], [4, 6])
    assert list(ended.error_x.array) == pytest.approx([0.15, 0.1])
    assert list(ended.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert (list(stopped.x), list(stopped.y)) == ([0.8], [0.3])
    assert ended.marker.symbol != stopped.marker.symbol
    assert stopped.error_x.color == "rgba(204,121,167,0.35)"
    assert len(left_out_figure(frame.iloc[:1], ACCURACY).data) == 2
    assert "not measured" in left_out_figure(frame.iloc[:0], ACCURACY).layout.annotations[0].text


QUALITY = pd.DataFrame(
    [(9, 8.0, 0.5, None), (10, 9.0, 0.6, 0.3), (11, 10.0, None, None)],
    columns=["number", "n", "rank_correlation", "held_out"],
).astype({"held_out": "float64"})


def test_how_the_model_got_better() -> None:
    figure = quality_figure(QUALITY)
    assert [trace.name for trace in figure.data] == ["one configuration left out", "a fifth of them left out"]
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([8, 9], [0.5, 0.6])
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([9], [0.3])
    assert "with 9 configurations: one left out 0.60, a fifth left out 0.30" in quality_words(QUALITY)
    assert "a fifth left out not measured" in quality_words(QUALITY.iloc[:1])
    for nothing in (QUALITY.iloc[:0], QUALITY.iloc[2:]):
        assert "not measured" in quality_figure(nothing).layout.annotations[0].text
        assert "Not measured" in quality_words(nothing)


CURVES = pd.DataFrame([(10, 0.25, 0.8, 12)], columns=["step", "share", "correlation", "n_trials"])
RUNGS = pd.DataFrame(
    [(20.0, 0.5, "accuracy", 9.0, 0.6, 0.2, 0.9, HOSTILE), (30.0, 0.75, "accuracy", 1.0, None, None, None, "x")],
    columns=["step", "share", "objective", "n", "tau", "low", "high", "use"],
).astype({"tau": "float64", "low": "float64", "high": "float64"})


def test_early_measurements() -> None:
    figure = fidelity_figure(CURVES, RUNGS)
    assert (list(figure.data[0].x), list(figure.data[0].y)) == ([25], [0.8])
    assert (list(figure.data[1].x), list(figure.data[1].y)) == ([50], [0.6])
    assert list(figure.data[1].error_y.array) == pytest.approx([0.3])
    assert list(figure.data[1].error_y.arrayminus) == pytest.approx([0.4])
    assert "<script" not in json.dumps(figure.to_plotly_json(), default=str)
    assert fidelity_words(CURVES, RUNGS.iloc[:0]) == (
        "Rank correlation with the end after 25 % of the training: 0.80 (12 trials)."
    )
    assert "At the pruner's rungs: step 20 0.60 (95 %: 0.20 to 0.90)" in fidelity_words(CURVES, RUNGS)
    assert len(fidelity_figure(CURVES.iloc[:0], RUNGS).data) == 1
    assert "not measured" in fidelity_figure(CURVES.iloc[:0], RUNGS.iloc[:0]).layout.annotations[0].text
    assert "Not measured" in fidelity_words(CURVES.iloc[:0], RUNGS.iloc[:0])
