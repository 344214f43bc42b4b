"""How the front grew."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ._style import BLUE, ORANGE, empty_figure, finish, plain, rounded


def hypervolume_figure(frame: pd.DataFrame, rivals: pd.DataFrame, *, over: str, unit: str) -> go.Figure:
    """Draw how the front grew.

    Args:
        frame: `hypervolume_frame` of the study.
        rivals: `rival_band` of random searches; empty if there is none.
        over: ``"n_trials"`` or ``"hours"``.
        unit: Of the hypervolume.
    """
    if frame.empty:
        return empty_figure("No search trial has been measured yet.", height=260)
    figure = go.Figure()
    if over == "n_trials" and not rivals.empty:
        both = pd.concat([rivals["n_trials"], rivals["n_trials"][::-1]])
        ends = pd.concat([rivals["high"], rivals["low"][::-1]])
        figure.add_trace(
            go.Scatter(
                x=both,
                y=ends,
                fill="toself",
                fillcolor="rgba(213,94,0,0.18)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=rivals["n_trials"],
                y=rivals["middle"],
                name="random search (median, range)",
                line={"color": ORANGE, "dash": "dot", "width": 2, "shape": "hv"},
            )
        )
    minutes = over == "hours" and float(frame["hours"].max()) < 2
    across = frame[over] * (60 if minutes else 1)
    figure.add_trace(
        go.Scatter(
            x=across,
            y=frame["hypervolume"],
            name="this search",
            customdata=frame["number"],
            line={"color": BLUE, "width": 2.5, "shape": "hv"},
            hovertemplate="%{y:.4s} after trial %{customdata}<extra></extra>",
        )
    )
    time = "time since the first trial (min)" if minutes else "time since the first trial (h)"
    figure.update_xaxes(title={"text": "finished search trials" if over == "n_trials" else time})
    figure.update_yaxes(title={"text": plain(f"hypervolume ({unit})")}, tickformat="~s")
    return finish(figure, height=300)


def hypervolume_words(frame: pd.DataFrame, rivals: pd.DataFrame) -> str:
    """The growth of the front in words."""
    if frame.empty:
        return "No search trial has been measured yet."
    last = frame.iloc[-1]
    grown = frame[frame["hypervolume"] >= last["hypervolume"]].iloc[0]
    text = (
        f"The front covers {rounded(last['hypervolume'])} after {int(last['n_trials'])} search trials; "
        f"it last grew with trial {int(grown['number'])}, after {int(grown['n_trials'])}."
    )
    if not rivals.empty:
        n = min(len(rivals), len(frame))
        text += (
            f" Random search covered {rounded(rivals['middle'].iloc[n - 1])} after {n} trials, "
            f"this one {rounded(frame['hypervolume'].iloc[n - 1])}."
        )
    return text
