"""The picture of the front: quality against cost, every trial a point."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from autopeft.export import format_count, format_score, format_short_count
from autopeft.objectives import Direction, Objective

from ._axes import Place, focus
from ._crowd import CROWDED, thinned, with_both
from ._style import (
    BLUE,
    GREEN,
    GREY,
    NEUTRAL,
    ORANGE,
    PURPLE,
    SKY,
    axis_title,
    empty_figure,
    finish,
    plain,
    readable,
)
from ._style import shown as shown_value

#: From this many points of a kind on, they are smaller and paler: what matters must be seen through them.
MANY = 300

#: Role: name in the legend, symbol, color, size, opacity. Back to front.
_LOOKS: dict[str, tuple[str, str, str, int, float]] = {
    "dominated": ("dominated", "circle-open", GREY, 8, 0.75),
    "pruned": ("stopped early (at its last rung)", "triangle-down-open", PURPLE, 9, 0.9),
    "infeasible": ("breaks budget or a constraint", "x-thin", ORANGE, 9, 0.9),
    "baseline": ("baseline", "diamond", ORANGE, 10, 0.95),
    "front": ("front", "circle", BLUE, 11, 1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What is pointed out in the picture.

    Args:
        budget: Cap on trainable parameters; drawn where they are an axis.
        recommended: Number of the recommended trial.
        knee: Number of the front's knee.
        selected: Number of the trial that the user looks at.
        words: Configurations in words, by number, for those that are shown on hovering.
        reasons: Why a trial is marked, by number.
        undirected: Names of values of which nobody knows which way is better.
    """

    budget: int | None = None
    recommended: int | None = None
    knee: int | None = None
    selected: int | None = None
    words: Mapping[int, str] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    undirected: Collection[str] = ()


def front_figure(
    frame: pd.DataFrame,
    *,
    x: Objective,
    y: Objective,
    marks: Marks,
    intervals: pd.DataFrame | None = None,
    hidden: Collection[str] = (),
    every: bool = False,
) -> go.Figure:
    """Draw one value against another; every point carries its trial's number as ``customdata``.

    Args:
        frame: `add_roles` of a study's trials with columns for both values.
        x: Across.
        y: Up.
        marks: What is pointed out.
        intervals: `seed_intervals` of `y`.
        hidden: Roles that are left out.
        every: Whether every point is drawn, the crowd by the graphics card, rather than what `drawn_points` gives.
    """
    whole = with_both(frame, x, y, hidden)
    if whole.empty:
        return empty_figure("No trial has both values yet.", height=320)
    # Axes are those of all points, whichever are drawn.
    places = {axis.name: Place(whole[axis.name], axis, marks.budget) for axis in (x, y)}
    ends = focus(whole, y, intervals)
    points = whole if every else thinned(whole, x, y, kept=_pointed_out(marks))
    if ends is not None and not places[y.name].is_log:
        places[y.name].axis["range"] = list(ends)
    figure = go.Figure()
    _add_budget(figure, x, y, marks)
    for role in _LOOKS:
        _add_role(figure, points[points["role"] == role], x, y, places, marks, role=role, every=every)
    _add_front_line(figure, points, x, y, places)
    if intervals is not None and not intervals.empty:
        _add_intervals(figure, points, intervals, x, y, places)
    _add_marks(figure, points, x, y, places, marks)
    for axis, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        title = axis_title(axis, has_direction=axis.name not in marks.undirected)
        # Plotly writes a billion as B, which is no byte.
        update(title={"text": title}, tickformat="~s" if axis.unit == "bytes" else None, **places[axis.name].axis)
    # A click is a question about one point; boxes and lassos are drawn with the tools above the picture.
    figure.update_layout(hovermode="closest", clickmode="event+select", dragmode="pan")
    finish(figure, height=520)
    figure.update_layout(legend_itemsizing="constant")
    return figure


def _add_role(
    figure: go.Figure,
    rows: pd.DataFrame,
    x: Objective,
    y: Objective,
    places: Mapping[str, Place],
    marks: Marks,
    *,
    role: str,
    every: bool,
) -> None:
    """The trials of one role: those with words of their own, and the crowd of the others if there are many."""
    if rows.empty:
        return
    look = _LOOKS[role]
    is_told = rows["number"].isin([*marks.words, *marks.reasons]) | rows["label"].notna()
    is_crowded = role in CROWDED and len(rows) >= MANY
    if is_crowded:
        name, symbol, color, size, opacity = look
        look = (name, symbol, color, round(0.65 * size), 0.65 * opacity)
    crowd = rows[~is_told] if is_crowded else rows.iloc[:0]
    told = rows.drop(crowd.index)
    if not crowd.empty:
        figure.add_trace(_crowd(crowd, x, y, places, look, is_named=told.empty, by_card=every))
    if not told.empty:
        figure.add_trace(_points(told, x, y, places, look, marks))


def n_outside(
    frame: pd.DataFrame,
    *,
    x: Objective,
    y: Objective,
    intervals: pd.DataFrame | None = None,
    hidden: Collection[str] = (),
) -> int:
    """How many points `front_figure` leaves outside at first, because they are far worse than the rest."""
    points = with_both(frame, x, y, hidden)
    if points.empty or Place(points[y.name], y, None).is_log:
        return 0
    ends = focus(points, y, intervals)
    return 0 if ends is None else int((~points[y.name].between(*ends)).sum())


def drawn_points(
    frame: pd.DataFrame, *, x: Objective, y: Objective, marks: Marks, hidden: Collection[str] = ()
) -> tuple[pd.DataFrame, int]:
    """The rows whose points `front_figure` draws, and how many there are in all; its arguments mean the same."""
    whole = with_both(frame, x, y, hidden)
    return (whole if whole.empty else thinned(whole, x, y, kept=_pointed_out(marks))), len(whole)


def _pointed_out(marks: Marks) -> list[int]:
    numbers = (marks.recommended, marks.knee, marks.selected)
    return [*marks.reasons, *(number for number in numbers if number is not None)]


def front_words(frame: pd.DataFrame, *, x: Objective, y: Objective, marks: Marks) -> str:
    """The picture in words, for those who do not see it."""
    counts = frame["role"].value_counts()
    parts = [f"{int(counts[role])} {look[0]}" for role, look in _LOOKS.items() if counts.get(role, 0)]
    text = f"Scatter plot of {readable(y.name)} against {readable(x.name)}: {', '.join(parts) or 'no trials'}."
    for number, name in ((marks.recommended, "Recommended"), (marks.knee, "Knee")):
        row = frame[frame["number"] == number]
        if number is not None and not row.empty:
            values = ", ".join(f"{readable(item.name)} {shown_value(row[item.name].iloc[0], item)}" for item in (y, x))
            text += f" {name}: trial {number}, {values}."
    if marks.budget is not None:
        text += f" The budget allows {format_count(marks.budget)} trainable parameters."
    return text


def _crowd(
    rows: pd.DataFrame,
    x: Objective,
    y: Objective,
    places: Mapping[str, Place],
    look: tuple[str, str, str, int, float],
    *,
    is_named: bool,
    by_card: bool,
) -> go.Scatter | go.Scattergl:
    """Very many points without words, with one pattern of text for all of them."""
    name = look[0]
    lines = [
        "<b>Trial %{customdata}</b>",
        plain(f"{readable(y.name)}: ") + "%{y:,.4~f}",
        plain(f"{readable(x.name)}: ") + "%{x:,.4~f}",
        "select it to see its configuration",
    ]
    kind = go.Scattergl if by_card else go.Scatter
    return kind(
        x=places[x.name](rows[x.name]),
        y=places[y.name](rows[y.name]),
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=is_named,
        customdata=rows["number"].tolist(),
        hovertemplate="<br>".join(lines) + "<extra></extra>",
        marker=_marker(look, 1.0),
        unselected={"marker": {"opacity": 0.15}},
    )


def _points(
    rows: pd.DataFrame,
    x: Objective,
    y: Objective,
    places: Mapping[str, Place],
    look: tuple[str, str, str, int, float],
    marks: Marks,
) -> go.Scatter:
    name = look[0]
    numbers = rows["number"].tolist()
    return go.Scatter(
        x=places[x.name](rows[x.name]),
        y=places[y.name](rows[y.name]),
        mode="markers",
        name=name,
        legendgroup=name,
        customdata=numbers,
        hovertext=_hover(rows, x, y, marks),
        hoverinfo="text",
        marker=_marker(look, 1.5),
        # What is not in a brush fades instead of vanishing.
        unselected={"marker": {"opacity": 0.25}},
    )


def _marker(look: tuple[str, str, str, int, float], width: float) -> dict[str, object]:
    _, symbol, color, size, opacity = look
    return {
        "symbol": symbol,
        "color": color,
        "size": size,
        "opacity": opacity,
        "line": {"width": width, "color": color},
    }


def _hover(rows: pd.DataFrame, x: Objective, y: Objective, marks: Marks) -> list[str]:
    texts = []
    for number, label, vertical, across, share in zip(
        rows["number"], rows["label"], rows[y.name], rows[x.name], rows["rung_share"], strict=True
    ):
        lines = [f"<b>Trial {number}</b>"]
        words = label if isinstance(label, str) else marks.words.get(number)
        if words:
            lines.append(plain(_wrapped(words)).replace("\n", "<br>"))
        lines.append(f"{plain(readable(y.name))}: {shown_value(vertical, y)}")
        lines.append(f"{plain(readable(x.name))}: {shown_value(across, x)}")
        if not words:
            lines.append("select it to see its configuration")
        if share == share:  # a NaN differs from itself
            lines.append(f"stopped after {100 * share:.0f} % of its steps")
        if number in marks.reasons:
            lines.append(plain(_wrapped(marks.reasons[number])).replace("\n", "<br>"))
        texts.append("<br>".join(lines))
    return texts


def _wrapped(text: str, width: int = 60) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    return "\n".join(lines[:6])


def _add_budget(figure: go.Figure, x: Objective, y: Objective, marks: Marks) -> None:
    if marks.budget is None:
        return
    text = f"budget {format_short_count(marks.budget)}"
    line = {"line_dash": "dash", "line_color": GREEN, "line_width": 1.5}
    # Shapes stand at values, annotations on a logarithmic axis at exponents.
    place = math.log10(marks.budget) if marks.budget > 0 else 0.0
    if x.name == "trainable_parameters":
        figure.add_vline(x=marks.budget, **line)
        note = {"x": place, "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "top", "xshift": 4}
    elif y.name == "trainable_parameters":
        figure.add_hline(y=marks.budget, **line)
        note = {"y": place, "x": 0, "xref": "paper", "xanchor": "left", "yanchor": "bottom", "yshift": 2}
    else:
        return
    figure.add_annotation(text=text, showarrow=False, font={"color": GREEN}, **note)


def _add_front_line(
    figure: go.Figure, points: pd.DataFrame, x: Objective, y: Objective, places: Mapping[str, Place]
) -> None:
    """The edge of what the front dominates; a plain staircase where less across and more up is better."""
    members = points[points["role"] == "front"].sort_values(x.name)
    if len(members) < 2 or x.direction is not Direction.MINIMIZE or y.direction is not Direction.MAXIMIZE:
        return
    if not members[y.name].is_monotonic_increasing:
        return  # the front is one of other objectives
    figure.add_trace(
        go.Scatter(
            x=places[x.name](members[x.name]),
            y=places[y.name](members[y.name]),
            mode="lines",
            line={"color": BLUE, "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _add_intervals(
    figure: go.Figure,
    points: pd.DataFrame,
    intervals: pd.DataFrame,
    x: Objective,
    y: Objective,
    places: Mapping[str, Place],
) -> None:
    rows = intervals.merge(points[["number", x.name]], on="number")
    if rows.empty:
        return
    texts = [
        f"<b>Trial {number:.0f}</b>, {n:.0f} further seeds<br>mean {format_score(mean)}, "
        f"95 % interval {format_score(low)} to {format_score(high)}"
        for number, n, mean, low, high in rows[["number", "n_seeds", "mean", "low", "high"]].to_numpy().tolist()
    ]
    figure.add_trace(
        go.Scatter(
            x=places[x.name](rows[x.name]),
            y=rows["mean"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": rows["high"] - rows["mean"],
                "arrayminus": rows["mean"] - rows["low"],
                "color": SKY,
                "thickness": 1.5,
                "width": 4,
            },
            mode="markers",
            marker={"symbol": "line-ew", "size": 10, "line": {"color": SKY, "width": 3}},
            name="mean over further seeds, 95 % interval",
            customdata=rows["number"].tolist(),
            hovertext=texts,
            hoverinfo="text",
        )
    )


def _add_marks(
    figure: go.Figure,
    points: pd.DataFrame,
    x: Objective,
    y: Objective,
    places: Mapping[str, Place],
    marks: Marks,
) -> None:
    looks = (
        (marks.knee, "knee", "square-open", BLUE, 17),
        (marks.recommended, "recommended", "star", BLUE, 17),
        (marks.selected, "selected", "circle-open", NEUTRAL, 24),
    )
    for number, name, symbol, color, size in looks:
        row = points[points["number"] == number]
        if number is None or row.empty:
            continue
        outline = {"width": 3 if name == "selected" else 2, "color": color}
        figure.add_trace(
            go.Scatter(
                x=places[x.name](row[x.name]),
                y=places[y.name](row[y.name]),
                mode="markers",
                name=name,
                customdata=[number],
                hovertext=_hover(row, x, y, marks),
                hoverinfo="skip" if name == "selected" else "text",
                marker={"symbol": symbol, "size": size, "color": color, "line": outline},
                unselected={"marker": {"opacity": 1}},
            )
        )
