"""From frames to Plotly figures, and to the same in words: pure functions."""

from ._front import Marks, front_figure, front_words, hypervolume_figure, hypervolume_words
from ._heatmap import average_figure, average_words, heatmap_figure, heatmap_words
from ._style import axis_title, empty_figure, plain, readable, shown

__all__ = [
    "Marks",
    "average_figure",
    "average_words",
    "axis_title",
    "empty_figure",
    "front_figure",
    "front_words",
    "heatmap_figure",
    "heatmap_words",
    "hypervolume_figure",
    "hypervolume_words",
    "plain",
    "readable",
    "shown",
]
