"""Which parameters matter."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ._style import BLUE, GREY, empty_figure, finish, plain


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
    base = (
        f"Based on {n_trials} trials; the model explains {100 * max(explained or 0, 0):.0f} % of what it has not seen."
    )
    return (f"Unreliable: {doubt}. " if doubt else "") + f"{base} Most important: {top}."
