"""What leaves a study: reports and figures, results in words, adapters.

Figures, reports and adapters are loaded on first use, so that a table of trials waits for neither matplotlib nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autopeft.export._format import (
    format_bytes,
    format_count,
    format_duration,
    format_score,
    format_share,
    format_short_count,
    format_time,
    format_value,
    printable,
)
from autopeft.export._grid import Grid, configuration_grid, layer_count
from autopeft.export._result import StudyResult, display_name, environment_values, report_value

if TYPE_CHECKING:
    from autopeft.export._documents import (
        SCHEMA_VERSION,
        front_document,
        report_document,
        show_document,
        status_counts,
        status_document,
        studies_document,
        trial_document,
        trials_document,
    )
    from autopeft.export._export import Export, export_trial
    from autopeft.export._figures import front_description, front_figure, heatmap_description, heatmap_figure
    from autopeft.export._ladder import FORMS, Form, choose_form
    from autopeft.export._load import load
    from autopeft.export._loss import describe_storage
    from autopeft.export._report import REPORT_FORMATS, render_report
    from autopeft.export._storage import STORAGES

#: Names that are loaded on first use, and the modules they are in.
_LAZY = {
    "FORMS": "_ladder",
    "REPORT_FORMATS": "_report",
    "SCHEMA_VERSION": "_documents",
    "STORAGES": "_storage",
    "Export": "_export",
    "Form": "_ladder",
    "choose_form": "_ladder",
    "describe_storage": "_loss",
    "export_trial": "_export",
    "front_description": "_figures",
    "front_document": "_documents",
    "front_figure": "_figures",
    "heatmap_description": "_figures",
    "heatmap_figure": "_figures",
    "load": "_load",
    "render_report": "_report",
    "report_document": "_documents",
    "show_document": "_documents",
    "status_counts": "_documents",
    "status_document": "_documents",
    "studies_document": "_documents",
    "trial_document": "_documents",
    "trials_document": "_documents",
}

__all__ = [
    "FORMS",
    "REPORT_FORMATS",
    "SCHEMA_VERSION",
    "STORAGES",
    "Export",
    "Form",
    "Grid",
    "StudyResult",
    "choose_form",
    "configuration_grid",
    "describe_storage",
    "display_name",
    "environment_values",
    "export_trial",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_score",
    "format_share",
    "format_short_count",
    "format_time",
    "format_value",
    "front_description",
    "front_document",
    "front_figure",
    "heatmap_description",
    "heatmap_figure",
    "layer_count",
    "load",
    "printable",
    "render_report",
    "report_document",
    "report_value",
    "show_document",
    "status_counts",
    "status_document",
    "studies_document",
    "trial_document",
    "trials_document",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
