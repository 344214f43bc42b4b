"""Which parameters matter: bars and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from autopeft.objectives import Objective

from ._style import BLUE, GREY, NEUTRAL, empty_figure, finish, plain, readable

#: Gray to blue: an order that any color vision sees, on light pages and on dark ones.
_WORSE_TO_BETTER = [[0.0, "#B8B8B8"], [0.6, "#56B4E9"], [1.0, "#0072B2"]]


def importance_figure(frame: pd.DataFrame, *, is_reliable: bool) -> go.Figure:
    """Draw importances as bars; pale and hatched where they are not reliable.

    Args:
        frame: `Importance.frame`.
        is_reliable: Whether they are.
    """
    rows = frame[frame["importance"] >= 0.005].head(15).iloc[::-1]
    if rows.empty or not rows["importance"].any():
        return empty_figure("Nothing can be said about the parameters yet.")
    pattern = {"shape": "" if is_reliable else "/", "fgcolor": GREY, "fillmode": "overlay"}
    figure = go.Figure(
        go.Bar(
            x=100 * rows["importance"],
            y=[plain(name) for name in rows["parameter"]],
            orientation="h",
            marker={"color": BLUE, "opacity": 1.0 if is_reliable else 0.45, "pattern": pattern},
            hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
        )
    )
    figure.update_xaxes(title={"text": "share of what the model loses without it (%)"}, rangemode="tozero")
    finish(figure, height=110 + 24 * len(rows), legend=False)
    figure.update_layout(dragmode=False)
    return figure


def importance_words(frame: pd.DataFrame, explained: float | None, n_trials: int, doubt: str | None) -> str:
    """Importances in words, their reliability first."""
    if frame.empty:
        return f"Not known: {doubt}." if doubt else "Not known."
    top = ", ".join(f"{row['parameter']} {100 * row['importance']:.0f} %" for row in frame.head(3).to_dict("records"))
    base = f"Based on {n_trials} trials; the model explains {max(explained or 0, 0):.0%} of what it has not seen."
    return (f"Unreliable: {doubt}. " if doubt else "") + f"{base} Most important: {top}."


def parallel_figure(points: pd.DataFrame, values: Mapping[int, float], objective: Objective) -> go.Figure:
    """Draw every trial as a line across its parameters, shaded by its value; drag along an axis to brush.

    Args:
        points: `params_frame` of the trials drawn.
        values: The objective's value by trial number.
        objective: What the lines are shaded by.
    """
    rows = points[points["number"].isin(list(values))]
    names = [name for name in rows.columns if name != "number" and rows[name].map(repr).nunique() > 1]
    if len(rows) < 2 or not names:
        return empty_figure("Fewer than two trials with different parameters have been measured.")
    y = np.array([values[int(number)] for number in rows["number"]])
    dimensions = [_dimension(name, rows[name].tolist()) for name in names[:14]]
    dimensions.append({"label": plain(readable(objective.name)), "values": y})
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": y * objective.sign,
                "colorscale": _WORSE_TO_BETTER,
                "showscale": False,
            },
            labelangle=-20,
            labelside="top",
            labelfont={"size": 12, "color": NEUTRAL},
            tickfont={"size": 11, "color": NEUTRAL},
            rangefont={"size": 10, "color": "rgba(0,0,0,0)"},
            unselected={"line": {"color": GREY, "opacity": 0.08}},
        )
    )
    finish(figure, height=420, legend=False)
    figure.update_layout(margin={"l": 60, "r": 60, "t": 90, "b": 24})
    return figure


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis: numbers where all are numbers, by logarithm if wide; else one place per word, inactive lowest."""
    missing = [value is None or value != value for value in values]
    present = [value for value, absent in zip(values, missing, strict=True) if not absent]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)
    if not numeric or (any(missing) and len(set(map(repr, present))) <= 8):
        words = sorted({_word(value) for value in present}, key=_order)
        places = {word: i for i, word in enumerate((["off"] if any(missing) else []) + words)}
        at = [places["off"] if absent else places[_word(value)] for value, absent in zip(values, missing, strict=True)]
        return {
            "label": plain(name),
            "values": at,
            "tickvals": list(places.values()),
            "ticktext": [plain(word) for word in places],
        }
    numbers = np.array([np.nan if absent else float(value) for value, absent in zip(values, missing, strict=True)])
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    is_log = low > 0 and high / low > 8
    scaled = np.log10(numbers) if is_log else numbers
    ends = [float(np.nanmin(scaled)), float(np.nanmax(scaled))]
    ticks = _ticks(ends, is_log=is_log, is_whole=all(float(value).is_integer() for value in present))
    texts = [f"{10**tick if is_log else tick:.3g}" for tick in ticks]
    if any(missing):
        # Where it is off it has no number: a place of its own below all others.
        floor = ends[0] - 0.15 * max(ends[1] - ends[0], 1e-9)
        scaled = np.where(np.isnan(scaled), floor, scaled)
        # In ascending order: Plotly sorts places, and leaves their words as they stand.
        ticks, texts = np.append(floor, ticks), ["off", *texts]
    return {"label": plain(name), "values": scaled, "tickvals": ticks, "ticktext": texts}


def _ticks(ends: Sequence[float], *, is_log: bool, is_whole: bool) -> np.ndarray:
    """Five places from end to end; for whole numbers at whole numbers."""
    even = np.linspace(ends[0], ends[1], 5)
    if not is_whole:
        return even
    whole = np.unique(np.round(10**even if is_log else even))
    return np.log10(whole) if is_log else whole


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _order(word: str) -> tuple[int, float, str]:
    try:
        return (0, float(word), "")
    except ValueError:
        return (1, 0.0, word)


def parallel_words(n_trials: int, objective: Objective) -> str:
    """Parallel coordinates in words."""
    return (
        f"Parallel coordinates: one line for each of {n_trials} trials across its parameters, bluer where "
        f"{readable(objective.name)} is better."
    )
