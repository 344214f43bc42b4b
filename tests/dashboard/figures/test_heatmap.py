from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from autopeft.configuration import Configuration, ModuleSpec, Site
from dashboard.figures import average_figure, average_words, heatmap_figure, heatmap_words
from dashboard.figures._heatmap import _SCALE, _channels, _ink
from dashboard.queries import average_cells, cells_frame, compared_cells
from tests.export.studies import head_only, mixed_configuration


def cells(figure: go.Figure) -> dict[tuple[str, str], str]:
    """What stands in the cells, by part and layer."""
    written = [trace for trace in figure.data if trace.type == "scatter"]
    return {(y, x): text for trace in written for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)}


def test_parts_down_layers_across_modules_in_the_cells() -> None:
    configuration = mixed_configuration(rank=4, first=2)
    figure = heatmap_figure(cells_frame(configuration, 6, [1000] * len(configuration.placements)))
    shaded = figure.data[0]
    assert list(shaded.y) == ["q", "k", "v", "ffn"]
    assert list(shaded.x) == ["0", "1", "2", "3", "4", "5"]
    assert cells(figure)["q", "3"] == "lora 7<br>1k"
    assert cells(figure)["k", "1"] == "ia3<br>1k"
    assert shaded.z[0][3] == 3  # the logarithm of 1,000
    assert shaded.z[0][0] != shaded.z[0][0], "nothing there: no shade"
    assert "1,000 parameters" in shaded.hovertext[0][3]


def test_shade_follows_size_where_parameters_are_not_known() -> None:
    figure = heatmap_figure(cells_frame(mixed_configuration(rank=4, first=2), 6))
    z = figure.data[0].z
    assert z[0][3] < z[0][5]


def test_only_differences_are_shaded() -> None:
    left, right = mixed_configuration(rank=4, first=2), mixed_configuration(rank=4, first=3)
    first, second = (heatmap_figure(item, only_differences=True) for item in compared_cells(left, right, 6))
    for figure in (first, second):
        assert sum(value == value for row in figure.data[0].z for value in row) == (2 if figure is first else 0)
    assert list(cells(first).values()).count("lora 6") == 2
    assert list(cells(second).values()).count("none") == 2
    assert "=" in cells(first).values()


def test_names_of_modules_stay_text() -> None:
    configuration = Configuration.make(
        [(Site(layer=0, part="q"), ModuleSpec.make("<b>x</b><script>"))], learning_rate=1e-3
    )
    figures = [heatmap_figure(cells_frame(configuration, 1)), average_figure(average_cells([configuration], 1))]
    for figure in figures:
        assert "<script" not in json.dumps(figure.to_plotly_json(), default=str)


def test_the_average_over_the_front() -> None:
    average = average_cells([mixed_configuration(4, 2), mixed_configuration(8, 4), head_only(), head_only()], 6)
    figure = average_figure(average)
    assert figure.data[0].z[0][4] == 50
    assert cells(figure)["q", "4"] == "50 %<br>size 10"
    assert "Of 4 configurations" in average_words(average, 4)
    assert "(50 %)" in average_words(average, 4)


def test_nothing_tuned_is_said() -> None:
    assert "task head" in heatmap_figure(cells_frame(head_only(), 6)).layout.annotations[0].text
    assert "task head" in average_figure(average_cells([], 6)).layout.annotations[0].text
    assert "task head" in average_words(average_cells([], 6), 0)
    assert "0 places" in heatmap_words(cells_frame(head_only(), 6), "head only")
    words = heatmap_words(cells_frame(mixed_configuration(), 6, [10] * 14), "lora")
    assert words == "Heat map by part and layer, 14 places tuned with 140 parameters: lora."


@pytest.mark.parametrize("strength", np.linspace(0, 1, 41).tolist())
def test_text_can_be_read_on_every_shade(strength: float) -> None:
    """Oracle: the contrast of WCAG 2.1, 4.5 for text, of Plotly's own straight line between the scale's colors."""

    def luminance(channels: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    places = [place for place, _ in _SCALE]
    shade = [float(np.interp(strength, places, [_channels(color)[i] for _, color in _SCALE])) for i in range(3)]
    lights = sorted((luminance(shade), luminance(_channels(_ink(strength)))))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


def test_equal_cells_stand_in_the_middle_of_the_scale() -> None:
    configuration = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("lora", 4))], learning_rate=1e-3)
    shaded = heatmap_figure(cells_frame(configuration, 2, [1000])).data[0]
    assert (shaded.zmin, shaded.zmax) == (2, 4)
