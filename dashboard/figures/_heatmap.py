"""Configurations by layer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from autopeft.export import format_count, format_short_count

from ._style import empty_figure, finish, plain

#: Light to dark in lightness alone, so that color vision does not matter; the same on light and dark pages.
_SCALE: list[tuple[float, str]] = [(0.0, "#d7e8f4"), (0.5, "#56a0cf"), (1.0, "#08306b")]


def heatmap_figure(cells: pd.DataFrame, *, only_differences: bool = False, compact: bool = False) -> go.Figure:
    """Draw what one configuration trains where: shade by parameters (by size where they are not known).

    Args:
        cells: `cells_frame`, or one of `compared_cells`.
        compact: Whether there is no room for more than sizes in the cells.
        only_differences: Whether cells that are equal in both configurations are left pale and without text.
    """
    if cells.empty or not cells["n_modules"].any():
        return empty_figure("Only the task head is trained.")
    by = "parameters" if cells["parameters"].notna().any() else "size"
    table = _Table(cells)
    strength = cells[by].where(cells[by].notna(), 1.0).where(cells["n_modules"] > 0)
    labels = [_short_text(row) if compact else _cell_text(row) for row in _rows(cells)]
    if only_differences:
        strength = strength.where(cells["differs"])
        labels = [
            text if differs else ("=" if n else "")
            for text, differs, n in zip(labels, cells["differs"], cells["n_modules"], strict=True)
        ]
        # A place that this one leaves empty and the other does not.
        labels = [
            "none" if differs and not n else text
            for text, differs, n in zip(labels, cells["differs"], cells["n_modules"], strict=True)
        ]
    hover = [_cell_hover(row) for row in _rows(cells)]
    logs = np.log10(np.maximum(strength.to_numpy(dtype=np.float64), 1.0))
    known = logs[~np.isnan(logs)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    # One value alone, or equal ones, stand in the middle of the scale.
    ends = (low, high) if high > low else (low - 1, low + 1)
    figure = go.Figure()
    _add_cells(figure, table, logs, ends, labels, hover)
    return _finished(figure, table)


def heatmap_words(cells: pd.DataFrame, words: str) -> str:
    """A heat map in words.

    Args:
        cells: `cells_frame`.
        words: The configuration in words.
    """
    n = int((cells["n_modules"] > 0).sum()) if not cells.empty else 0
    known = cells["parameters"].dropna() if not cells.empty else pd.Series(dtype=float)
    total = f" with {format_count(known.sum())} parameters" if len(known) else ""
    return f"Heat map by part and layer, {n} places tuned{total}: {words}."


def average_figure(cells: pd.DataFrame) -> go.Figure:
    """Draw how many of several configurations tune each place.

    Args:
        cells: `average_cells`.
    """
    if cells.empty:
        return empty_figure("No front member tunes anything but the task head.")
    table = _Table(cells)
    labels = [_average_text(row) for row in _rows(cells)]
    hover = [_average_hover(row) for row in _rows(cells)]
    shares = 100 * cells["share"].where(cells["share"] > 0).to_numpy(dtype=np.float64)
    figure = go.Figure()
    _add_cells(figure, table, shares, (0.0, 100.0), labels, hover)
    return _finished(figure, table)


def average_words(cells: pd.DataFrame, n_configurations: int) -> str:
    """The average in words: the places that most of the configurations tune."""
    if cells.empty:
        return "No front member tunes anything but the task head."
    top = cells.sort_values("share", ascending=False, kind="stable").head(3)
    places = "; ".join(f"{row['part']} of layer {row['layer']} ({100 * row['share']:.0f} %)" for row in _rows(top))
    plural = "configuration" if n_configurations == 1 else "configurations"
    return f"Of {n_configurations} {plural} on the front, most tune: {places}."


class _Table:
    """Rows of cells as a rectangle, parts down and layers across."""

    def __init__(self, cells: pd.DataFrame) -> None:
        self.parts = list(dict.fromkeys(cells["part"]))
        self.layers = list(dict.fromkeys(cells["layer"]))

    def __call__(self, values: object) -> list[list[object]]:
        table: list[list[object]] = np.array(values, dtype=object).reshape(len(self.parts), len(self.layers)).tolist()
        return table


def _rows(cells: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in cells.to_dict("records")]


def _cell_text(row: Mapping[str, Any]) -> str:
    lines = [plain(line) for line in row["label"].split("\n") if line]
    if lines and not pd.isna(row["parameters"]):
        lines.append(format_short_count(row["parameters"]))
    return "<br>".join(lines)


def _short_text(row: Mapping[str, Any]) -> str:
    if not row["n_modules"]:
        return ""
    return "on" if pd.isna(row["size"]) else f"{row['size']:.0f}"


def _cell_hover(row: Mapping[str, Any]) -> str:
    if not row["n_modules"]:
        return f"<b>{_place(row)}</b><br>nothing is tuned here"
    lines = [f"<b>{_place(row)}</b>", *(plain(line) for line in row["label"].split("\n"))]
    if not pd.isna(row["parameters"]):
        lines.append(f"{format_count(row['parameters'])} parameters")
    return "<br>".join(lines)


def _average_text(row: Mapping[str, Any]) -> str:
    if not row["share"]:
        return ""
    size = "" if pd.isna(row["size"]) else f"<br>size {row['size']:.3g}"
    return f"{100 * row['share']:.0f} %{size}"


def _average_hover(row: Mapping[str, Any]) -> str:
    lines = [f"<b>{_place(row)}</b>", f"tuned by {100 * row['share']:.0f} % of the front"]
    if not pd.isna(row["size"]):
        lines.append(f"mean size {row['size']:.3g}")
    if not pd.isna(row["parameters"]):
        lines.append(f"mean parameters {format_count(row['parameters'])}")
    if row["types"]:
        lines.append(plain(row["types"]))
    return "<br>".join(lines)


def _place(row: Mapping[str, Any]) -> str:
    return plain(f"{row['part']}, layer {row['layer']}")


def _add_cells(
    figure: go.Figure, table: _Table, z: np.ndarray, ends: tuple[float, float], labels: list[str], hover: list[str]
) -> None:
    """Shaded cells, pale ones where there is no value, and text that is readable on each."""
    pale = np.where(np.isnan(z), 0.0, np.nan)
    pale_scale = [[0, "rgba(128,128,128,0.12)"], [1, "rgba(128,128,128,0.12)"]]
    for values, scale, (low, high) in ((z, _SCALE, ends), (pale, pale_scale, (0.0, 1.0))):
        figure.add_trace(
            go.Heatmap(
                z=table(values),
                x=table.layers,
                y=table.parts,
                hovertext=table(hover),
                hoverinfo="text",
                hoverongaps=False,
                colorscale=scale,
                zmin=low,
                zmax=high,
                showscale=False,
                xgap=3,
                ygap=3,
            )
        )
    places = [(layer, part) for part in table.parts for layer in table.layers]
    inks = [None if np.isnan(value) else _ink((value - ends[0]) / (ends[1] - ends[0])) for value in z]
    for is_shaded in (True, False):
        chosen = [i for i, ink in enumerate(inks) if (ink is not None) == is_shaded and labels[i]]
        if not chosen:
            continue
        # Without a color it has the page's own, light or dark.
        font = {"size": 12, "color": [inks[i] for i in chosen]} if is_shaded else {"size": 12}
        figure.add_trace(
            go.Scatter(
                x=[places[i][0] for i in chosen],
                y=[places[i][1] for i in chosen],
                text=[labels[i] for i in chosen],
                mode="text",
                textfont=font,
                hoverinfo="skip",
                showlegend=False,
            )
        )


def _ink(strength: float) -> str:
    """Black or white, whichever is easier to read on a shade: always a contrast of 4.5 or more."""
    strength = min(max(strength, 0.0), 1.0)
    (start, lower), (end, upper) = next(pair for pair in pairwise(_SCALE) if strength <= pair[1][0])
    share = (strength - start) / (end - start)
    mixed = [a + share * (b - a) for a, b in zip(_channels(lower), _channels(upper), strict=True)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mixed]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where both have the same contrast, by the formula of the WCAG.
    return "#000000" if luminance > 0.179 else "#ffffff"


def _channels(color: str) -> list[float]:
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _finished(figure: go.Figure, table: _Table) -> go.Figure:
    figure.update_xaxes(title={"text": "layer (0 is the lowest)"}, type="category", showgrid=False, side="bottom")
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    finish(figure, height=90 + 46 * len(table.parts), legend=False)
    figure.update_layout(dragmode=False, margin_t=8)
    return figure
