"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from autopeft.objectives import Objective

from ._style import BLUE, GREEN, GREY, NEUTRAL, ORANGE, PURPLE, SKY, axis_title, empty_figure, finish

_LINES = [(color, dash) for dash in ("solid", "dash", "dot") for color in (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)]
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
#: State: symbol of a curve's last point, and what it means.
_ENDS = {
    "PRUNED": ("triangle-down", "stopped early"),
    "FAILED": ("x", "failed"),
    "RUNNING": ("circle-open", "still running"),
}


def curves_figure(
    curves: pd.DataFrame, states: Mapping[int, str], objective: Objective, *, rungs: Sequence[int] = ()
) -> go.Figure:
    """Draw learning curves; lines differ by dash and symbol as well as by color.

    Args:
        curves: `curves_frame`.
        states: State of each trial; a curve that did not come to its end is marked at its last point.
        objective: What is measured along the curve.
        rungs: Steps at which the pruner decides.
    """
    if curves.empty:
        return empty_figure("No learning curve was reported for these trials.", height=260)
    figure = go.Figure()
    for i, number in enumerate(dict.fromkeys(curves["number"].tolist())):
        rows = curves[curves["number"] == number].sort_values("step")
        color, dash = _LINES[i % len(_LINES)]
        state = states.get(int(number), "")
        symbol, meaning = _ENDS.get(state, (None, ""))
        symbols = [_SYMBOLS[i % len(_SYMBOLS)]] * len(rows)
        sizes = [6] * len(rows)
        if symbol is not None:
            symbols[-1], sizes[-1] = symbol, 13
        figure.add_trace(
            go.Scatter(
                x=rows["step"],
                y=rows["value"],
                customdata=rows["epoch"],
                mode="lines+markers",
                name=f"trial {number}" + (f" ({meaning})" if meaning else ""),
                line={"color": color, "dash": dash, "width": 2},
                marker={"symbol": symbols, "size": sizes, "color": color, "line": {"width": 1.5, "color": color}},
                hovertemplate=f"trial {number}<br>step %{{x}}, epoch %{{customdata:.2f}}<br>%{{y:.4f}}<extra></extra>",
            )
        )
    for step in rungs:
        figure.add_vline(x=step, line_dash="dot", line_color=NEUTRAL, line_width=1)
    figure.update_xaxes(title={"text": "optimizer steps"}, rangemode="tozero")
    figure.update_yaxes(title={"text": axis_title(objective)})
    finish(figure, height=340)
    figure.update_layout(legend_itemsizing="constant")
    return figure


def curves_words(curves: pd.DataFrame, states: Mapping[int, str], objective: Objective) -> str:
    """Learning curves in words: where each begins and ends."""
    if curves.empty:
        return "No learning curve was reported for these trials."
    parts = []
    for number in dict.fromkeys(curves["number"].tolist()):
        rows = curves[curves["number"] == number].sort_values("step")
        end = _ENDS.get(states.get(int(number), ""), (None, ""))[1]
        parts.append(
            f"trial {number} from {rows['value'].iloc[0]:.4f} to {rows['value'].iloc[-1]:.4f} "
            f"after {int(rows['step'].iloc[-1])} steps" + (f", {end}" if end else "")
        )
    return f"Learning curves of {objective.name}: " + "; ".join(parts) + "."
