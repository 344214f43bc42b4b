from __future__ import annotations

import json

import pandas as pd
import pytest

from dashboard.figures import importance_figure, importance_words, parallel_figure, parallel_words
from tests.dashboard.studies import HOSTILE
from tests.study.builders import ACCURACY

IMPORTANCE = pd.DataFrame({"parameter": ["rank", "gate", "x"], "importance": [0.7, 0.3, 0.0]})


def test_unreliable_importances_look_unreliable() -> None:
    firm, weak = (importance_figure(IMPORTANCE, is_reliable=item) for item in (True, False))
    assert list(firm.data[0].y) == ["gate", "rank"], "the largest stands on top, nothing is left out that counts"
    assert list(firm.data[0].x) == pytest.approx([30, 70])
    assert firm.data[0].marker.pattern.shape == ""
    assert weak.data[0].marker.pattern.shape == "/"
    assert weak.data[0].marker.opacity < firm.data[0].marker.opacity


def test_importances_in_words_begin_with_the_doubt() -> None:
    text = importance_words(IMPORTANCE, 0.5, 14, "only 14 trials")
    assert text.startswith("Unreliable: only 14 trials.")
    assert "explains 50% of what it has not seen" in text
    assert "rank 70 %, gate 30 %" in text
    assert importance_words(IMPORTANCE.iloc[:0], None, 3, "only 3 trials") == "Not known: only 3 trials."
    assert importance_figure(IMPORTANCE.iloc[:0], is_reliable=False).layout.annotations


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


def test_every_varied_parameter_is_an_axis() -> None:
    figure = parallel_figure(POINTS, {1: 0.5, 2: 0.6, 3: 0.7}, ACCURACY)
    axes = {item.label: item for item in figure.data[0].dimensions}
    assert list(axes) == ["rank", "gate", "profile", "size", "accuracy"]
    assert list(axes["rank"].values) == pytest.approx([0, 0.903, 1.806], abs=1e-3), "a wide range by logarithm"
    assert axes["rank"].ticktext == ("1", "3", "8", "23", "64"), "whole numbers have whole places"
    assert list(axes["gate"].ticktext) == ["no", "yes"]
    assert axes["profile"].ticktext[0] == "off"
    assert list(axes["size"].ticktext) == ["off", "3", "40"]
    assert "<script" not in json.dumps(figure.to_plotly_json(), default=str)
    assert list(figure.data[0].line.color) == [0.5, 0.6, 0.7]


def test_too_little_for_lines_is_said() -> None:
    for points in (POINTS.iloc[:1], POINTS.iloc[:0], POINTS[["number", "same"]]):
        assert parallel_figure(points, {1: 0.5, 2: 0.6}, ACCURACY).layout.annotations
    assert "3 trials" in parallel_words(3, ACCURACY)
