"""From frames to Plotly figures, and to the same in words: pure functions."""

from ._crowd import MOST_DRAWN, inside, with_both
from ._curves import curves_figure, curves_words
from ._front import Marks, drawn_points, front_figure, front_words, n_outside
from ._growth import hypervolume_figure, hypervolume_words
from ._heatmap import average_figure, average_words, heatmap_figure, heatmap_words
from ._insight import importance_figure, importance_words
from ._model import (
    MOST_PREDICTIONS,
    fidelity_figure,
    fidelity_words,
    left_out_figure,
    quality_figure,
    quality_words,
    surrogate_figure,
)
from ._parallel import Parallel, brushed, parallel_figure, parallel_of, parallel_words, passing
from ._style import axis_title, empty_figure, plain, readable, sample_figure, shown

__all__ = [
    "MOST_DRAWN",
    "MOST_PREDICTIONS",
    "Marks",
    "Parallel",
    "average_figure",
    "average_words",
    "brushed",
    "axis_title",
    "curves_figure",
    "curves_words",
    "drawn_points",
    "empty_figure",
    "fidelity_figure",
    "fidelity_words",
    "front_figure",
    "front_words",
    "heatmap_figure",
    "heatmap_words",
    "hypervolume_figure",
    "hypervolume_words",
    "importance_figure",
    "importance_words",
    "inside",
    "left_out_figure",
    "n_outside",
    "parallel_figure",
    "parallel_of",
    "parallel_words",
    "passing",
    "plain",
    "quality_figure",
    "quality_words",
    "readable",
    "sample_figure",
    "shown",
    "surrogate_figure",
    "with_both",
]
