"""What leaves a study: reports and figures, summaries, adapters.

Names are loaded on first use, so that a table of trials does not wait for torch or matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopeft.export._figures import front_description, front_figure, heatmap_description, heatmap_figure
    from autopeft.export._grid import Grid, configuration_grid, layer_count
    from autopeft.export._report import render_report
    from autopeft.export._result import StudyResult, display_name, report_value

_HOMES = {
    "Grid": "_grid",
    "StudyResult": "_result",
    "configuration_grid": "_grid",
    "display_name": "_result",
    "front_description": "_figures",
    "front_figure": "_figures",
    "heatmap_description": "_figures",
    "heatmap_figure": "_figures",
    "layer_count": "_grid",
    "render_report": "_report",
    "report_value": "_result",
}

__all__ = [
    "Grid",
    "StudyResult",
    "configuration_grid",
    "display_name",
    "front_description",
    "front_figure",
    "heatmap_description",
    "heatmap_figure",
    "layer_count",
    "render_report",
    "report_value",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
