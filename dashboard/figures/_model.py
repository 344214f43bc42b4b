"""How far models and early measurements can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from autopeft.objectives import Objective

from ._style import BLUE, NEUTRAL, ORANGE, PURPLE, axis_title, empty_figure, finish, plain, readable

#: Predictions drawn, the newest; with more of them a browser takes long, and nobody sees them apart.
MOST_PREDICTIONS = 400


def surrogate_figure(frame: pd.DataFrame, objective: Objective) -> go.Figure:
    """Draw what the sampler's model expected against what was measured; on the line it was right.

    Args:
        frame: `SurrogateFacts.frame`.
        objective: What was predicted.
    """
    if frame.empty:
        return empty_figure("The sampler has noted no predictions: not measured.")
    look = ("trials (bar: one standard deviation)", "circle", BLUE)
    return _agreement([(frame.tail(MOST_PREDICTIONS), look)], objective, "expected before training")


def left_out_figure(frame: pd.DataFrame, objective: Objective) -> go.Figure:
    """Draw what the sampler's newest model expects of each trial from all others against what was measured.

    Args:
        frame: `LeftOutFacts.frame`.
        objective: What was predicted.
    """
    if frame.empty:
        return empty_figure("No model of this value is kept with the study: not measured.")
    frame = frame.tail(MOST_PREDICTIONS)
    looks = (
        ("trials (bar: one standard deviation)", "circle", BLUE),
        ("stopped early (at what they would have come to)", "triangle-down-open", PURPLE),
    )
    groups = [(frame[frame["is_extrapolated"] == is_wanted], look) for is_wanted, look in enumerate(looks)]
    return _agreement([item for item in groups if len(item[0])], objective, "expected from all other trials")


def _agreement(
    groups: Sequence[tuple[pd.DataFrame, tuple[str, str, str]]], objective: Objective, how: str
) -> go.Figure:
    """Draw expected against measured for groups of trials, each with its name, symbol and color."""
    frame = pd.concat([rows for rows, _ in groups])
    ends = [float(frame[["low", "measured"]].min().min()), float(frame[["high", "measured"]].max().max())]
    figure = go.Figure(
        go.Scatter(
            x=ends, y=ends, mode="lines", line={"color": NEUTRAL, "dash": "dash"}, name="as predicted", hoverinfo="skip"
        )
    )
    for rows, (name, symbol, color) in groups:
        figure.add_trace(
            go.Scatter(
                x=rows["predicted"],
                y=rows["measured"],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": rows["high"] - rows["predicted"],
                    "arrayminus": rows["predicted"] - rows["low"],
                    "color": _faint(color),
                    "thickness": 1,
                    "width": 0,
                },
                mode="markers",
                # Many lie on each other.
                marker={"color": color, "size": 8 if len(frame) < 100 else 6, "symbol": symbol, "opacity": 0.8},
                customdata=rows["number"],
                name=name,
                hovertemplate="trial %{customdata}<br>expected %{x:.4f}<br>measured %{y:.4f}<extra></extra>",
            )
        )
    figure.update_xaxes(title={"text": plain(f"{readable(objective.name)} {how}")})
    figure.update_yaxes(title={"text": axis_title(objective)})
    return finish(figure, height=360)


def _faint(color: str) -> str:
    """A color of `#RRGGBB` that lets through most of what is behind it."""
    return f"rgba({','.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))},0.35)"


def quality_figure(frame: pd.DataFrame) -> go.Figure:
    """Draw how the sampler's model became better as it knew more trials.

    Args:
        frame: `SurrogateFacts.quality`.
    """
    rows = frame[frame["rank_correlation"].notna() | frame["held_out"].notna()]
    if rows.empty:
        return empty_figure("The sampler has not judged a model: not measured.")
    figure = go.Figure()
    looks = (
        ("rank_correlation", "one configuration left out", BLUE, "solid", "circle"),
        ("held_out", "a fifth of them left out", ORANGE, "dot", "diamond"),
    )
    for name, label, color, dash, symbol in looks:
        known = rows[rows[name].notna()]
        if known.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=known["n"],
                y=known[name],
                customdata=known["number"],
                name=label,
                mode="lines+markers" if len(known) <= 60 else "lines",
                line={"color": color, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 6},
                hovertemplate=f"{label}<br>%{{y:.2f}} with %{{x}} configurations, before trial %{{customdata}}"
                "<extra></extra>",
            )
        )
    figure.add_hline(y=0, line_color=NEUTRAL, line_width=1)
    figure.update_xaxes(title={"text": "configurations that the model knew"})
    figure.update_yaxes(title={"text": "rank correlation (Spearman's)"}, range=[-1.05, 1.05])
    return finish(figure, height=340)


def quality_words(frame: pd.DataFrame) -> str:
    """The newest judgement in words."""
    rows = frame[frame["rank_correlation"].notna() | frame["held_out"].notna()]
    if rows.empty:
        return "Not measured: the sampler of this study has not judged a model."
    last = rows.iloc[-1]
    parts = [
        f"{label} {last[name]:.2f}" if last[name] == last[name] else f"{label} not measured"
        for name, label in (("rank_correlation", "one left out"), ("held_out", "a fifth left out"))
    ]
    return (
        f"Rank correlation of the newest model, with {last['n']:.0f} configurations: {', '.join(parts)} "
        "(1 is perfect, 0 is chance)."
    )


def fidelity_figure(frame: pd.DataFrame, rungs: pd.DataFrame) -> go.Figure:
    """Draw how well the order of trials early in training agrees with the order at its end.

    Args:
        frame: `fidelity_frame`: what the learning curves say.
        rungs: `rung_frame` of the same objective: what the search reported of its pruner's rungs.
    """
    known = rungs[rungs["tau"].notna()]
    if frame.empty and known.empty:
        return empty_figure("Fewer than five trials have reported the same step before their end: not measured.")
    figure = go.Figure()
    if not frame.empty:
        figure.add_trace(
            go.Scatter(
                x=100 * frame["share"],
                y=frame["correlation"],
                customdata=frame[["step", "n_trials"]].to_numpy(),
                mode="lines+markers",
                name="from the learning curves",
                line={"color": BLUE, "width": 2},
                marker={"size": 8},
                hovertemplate="step %{customdata[0]}, %{customdata[1]} trials<br>tau %{y:.2f}<extra></extra>",
            )
        )
    if not known.empty:
        figure.add_trace(
            go.Scatter(
                x=100 * known["share"],
                y=known["tau"],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": known["high"] - known["tau"],
                    "arrayminus": known["tau"] - known["low"],
                    "thickness": 1.5,
                    "width": 4,
                },
                customdata=[
                    (int(step), int(n) if n == n else 0, plain(str(use)))
                    for step, n, use in zip(known["step"], known["n"], known["use"], strict=True)
                ],
                mode="markers",
                name="at the pruner's rungs (95 % interval)",
                marker={"color": ORANGE, "symbol": "diamond", "size": 10},
                hovertemplate="rung at step %{customdata[0]}, %{customdata[1]} trials: %{customdata[2]}<br>tau %{y:.2f}"
                "<extra></extra>",
            )
        )
    figure.add_hline(y=0, line_color=NEUTRAL, line_width=1)
    figure.update_xaxes(title={"text": "share of the training done (%)"}, range=[0, 105])
    figure.update_yaxes(title={"text": "rank correlation (Kendall's tau)"}, range=[-1.05, 1.05])
    return finish(figure, height=340)


def fidelity_words(frame: pd.DataFrame, rungs: pd.DataFrame) -> str:
    """The same in words.

    Args:
        frame: `fidelity_frame`.
        rungs: `rung_frame` of the same objective.
    """
    parts = [
        f"{100 * row['share']:.0f} % of the training: {row['correlation']:.2f} ({row['n_trials']:.0f} trials)"
        for row in frame.to_dict("records")
    ]
    shown = parts if len(parts) <= 5 else [*parts[:2], "...", *parts[-2:]]
    text = (
        "Rank correlation with the end after " + "; ".join(shown) + "."
        if parts
        else "Not measured on the curves: fewer than five trials have reported the same step before their end."
    )
    told = [
        f"step {row['step']:.0f} {row['tau']:.2f}"
        + (f" (95 %: {row['low']:.2f} to {row['high']:.2f})" if row["low"] == row["low"] else "")
        + f", {row['use']}"
        for row in rungs[rungs["tau"].notna()].to_dict("records")
    ]
    return text + (f" At the pruner's rungs: {'; '.join(told)}." if told else "")
