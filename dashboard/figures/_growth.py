"""How the front grew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from autopeft.export import format_duration

from ._style import BLUE, ORANGE, empty_figure, finish, plain, rounded

#: Up to so many trials each one is marked on the line.
_FEW = 60


def hypervolume_figure(frame: pd.DataFrame, rivals: pd.DataFrame, *, over: str, unit: str) -> go.Figure:
    """Draw how the front grew, beside searches at random if there are any.

    Args:
        frame: `hypervolume_frame` of the study.
        rivals: `rival_band` of random searches over the same; empty if there is none.
        over: ``"n_trials"`` or ``"hours"``.
        unit: Of the hypervolume.
    """
    if frame.empty:
        return empty_figure("No search trial has been measured yet.", height=260)
    figure = go.Figure()
    minutes = over == "hours" and float(frame["hours"].max()) < 2
    scale = 60 if minutes else 1
    if not rivals.empty:
        _add_band(figure, rivals[over] * scale, rivals)
    steps = _steps(frame) if len(frame) > _FEW else frame
    figure.add_trace(
        go.Scatter(
            x=steps[over] * scale,
            y=steps["hypervolume"],
            mode="lines+markers" if len(frame) <= _FEW else "lines",
            name="this search",
            customdata=steps["number"],
            line={"color": BLUE, "width": 2.5, "shape": "hv"},
            hovertemplate="%{y:.4s} after trial %{customdata}<extra></extra>",
        )
    )
    time = "time since the first search trial (min)" if minutes else "time since the first search trial (h)"
    figure.update_xaxes(title={"text": "search trials that have ended" if over == "n_trials" else time})
    figure.update_yaxes(title={"text": plain(f"hypervolume ({unit})")}, tickformat="~s")
    return finish(figure, height=300)


def _steps(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that a staircase needs: those at which it rises, and the last one."""
    volume = frame["hypervolume"]
    rises = np.flatnonzero(volume != volume.shift())
    return frame.iloc[np.union1d(rises, [len(frame) - 1])]


def _add_band(figure: go.Figure, across: pd.Series, rivals: pd.DataFrame) -> None:
    step = {"width": 0, "shape": "hv"}
    hidden = {"mode": "lines", "line": step, "hoverinfo": "skip", "showlegend": False}
    figure.add_trace(go.Scatter(x=across, y=rivals["low"], **hidden))
    figure.add_trace(go.Scatter(x=across, y=rivals["high"], fill="tonexty", fillcolor="rgba(213,94,0,0.18)", **hidden))
    figure.add_trace(
        go.Scatter(
            x=across,
            y=rivals["middle"],
            mode="lines",
            name="random search (median, range)",
            line={"color": ORANGE, "dash": "dot", "width": 2, "shape": "hv"},
            hovertemplate="%{y:.4s}, random search<extra></extra>",
        )
    )


def hypervolume_words(frame: pd.DataFrame, rivals: pd.DataFrame, *, over: str = "n_trials") -> str:
    """The growth of the front in words.

    Args:
        frame: `hypervolume_frame` of the study.
        rivals: `rival_band` over the same; empty if there is none.
        over: ``"n_trials"`` or ``"hours"``.
    """
    if frame.empty:
        return "No search trial has been measured yet."
    last = frame.iloc[-1]
    grown = frame[frame["hypervolume"] >= last["hypervolume"]].iloc[0]
    text = (
        f"The front covers {rounded(last['hypervolume'])} after {_reach(last[over], over)}; "
        f"it last grew with trial {int(grown['number'])}, after {_reach(grown[over], over)}."
    )
    if not rivals.empty:
        end = min(float(rivals[over].iloc[-1]), float(last[over]))
        theirs = rivals.loc[rivals[over] <= end, "middle"]
        mine = frame.loc[frame[over] <= end, "hypervolume"]
        text += (
            f" Random search covered {rounded(theirs.iloc[-1] if len(theirs) else 0.0)} after {_reach(end, over)}, "
            f"this one {rounded(mine.iloc[-1] if len(mine) else 0.0)}."
        )
    return text


def _reach(value: float, over: str) -> str:
    if over == "n_trials":
        return f"{value:.0f} search trial{'' if value == 1 else 's'}"
    return format_duration(3600 * float(value))
