from __future__ import annotations

import json

from autopeft.configuration import Configuration, ModuleSpec, Site
from dashboard.figures import average_figure, average_words, heatmap_figure, heatmap_words
from dashboard.queries import average_cells, cells_frame, compared_cells
from tests.export.studies import head_only, mixed_configuration


def texts(figure: object) -> list[str]:
    return [text for trace in figure.data for row in trace.text for text in row if text]  # type: ignore[attr-defined]


def test_parts_down_layers_across_modules_in_the_cells() -> None:
    configuration = mixed_configuration(rank=4, first=2)
    figure = heatmap_figure(cells_frame(configuration, 6, [1000] * len(configuration.placements)))
    shaded = figure.data[0]
    assert list(shaded.y) == ["q", "k", "v", "ffn"]
    assert list(shaded.x) == ["0", "1", "2", "3", "4", "5"]
    assert shaded.text[0][3] == "lora 7<br>1k"
    assert shaded.text[1][1] == "ia3<br>1k"
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
    assert texts(first).count("lora 6") == 2
    assert texts(second).count("none") == 2
    assert "=" in texts(first)


def test_names_of_modules_stay_text() -> None:
    configuration = Configuration.make(
        [(Site(layer=0, part="q"), ModuleSpec.make("<b>x</b><script>"))], learning_rate=1e-3
    )
    figures = [heatmap_figure(cells_frame(configuration, 1)), average_figure(average_cells([configuration], 1))]
    for figure in figures:
        assert "<script" not in json.dumps(figure.to_plotly_json(), default=str)


def test_the_average_over_the_front() -> None:
    cells = average_cells([mixed_configuration(4, 2), mixed_configuration(8, 4), head_only(), head_only()], 6)
    figure = average_figure(cells)
    assert figure.data[0].z[0][4] == 50
    assert figure.data[0].text[0][4] == "50 %<br>size 10"
    assert "Of 4 configurations" in average_words(cells, 4)
    assert "(50 %)" in average_words(cells, 4)


def test_nothing_tuned_is_said() -> None:
    assert "task head" in heatmap_figure(cells_frame(head_only(), 6)).layout.annotations[0].text
    assert "task head" in average_figure(average_cells([], 6)).layout.annotations[0].text
    assert "task head" in average_words(average_cells([], 6), 0)
    assert "0 places" in heatmap_words(cells_frame(head_only(), 6), "head only")
    words = heatmap_words(cells_frame(mixed_configuration(), 6, [10] * 14), "lora")
    assert words == "Heat map by part and layer, 14 places tuned with 140 parameters: lora."
