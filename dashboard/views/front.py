"""The front: what quality costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from autopeft.objectives import COSTS, Objective

from .. import figures, queries
from . import _cache, _links, _trial
from ._names import FRONT_HELP, ROLE_HELP, ROLES
from ._study import Open
from ._table import table

#: Points whose configuration is shown on hovering; the others show it when they are selected.
_MAX_WORDS = 400
#: Rows of the table.
_MAX_ROWS = 10_000
#: Key of the switch that draws the whole crowd.
_EVERY = "front every"
_HIDABLE = {
    "dominated": "dominated",
    "pruned": "stopped early",
    "infeasible": "infeasible",
    "baseline": "baselines",
    "intervals": "intervals",
}


def show(opened: Open) -> None:
    """Draw the page."""
    frame = opened.frame()
    result = opened.result
    with st.container(border=True):
        # Text of a study is data: it is shown as it is, never as Markdown or HTML.
        st.text(result.headline)
        if result.covered is not None:
            st.caption(
                f"That was said when the search had {queries.counted(result.covered, 'trial')}; it has gone on since."
            )
    up, across, right = st.columns([2, 2, 4])
    x, y = _axes(opened, up, across)
    frame = opened.frame(x.name, y.name)
    with right:
        shown = _toggles()
    trial = opened.trial
    wide, narrow = st.columns([5, 3])
    with wide:
        brushed = _chart(opened, frame, x, y, shown)
    with narrow:
        if trial is not None:
            _trial.show_panel(opened, trial, key="front")
        else:
            _recommendations(result)
    _table(opened, frame, brushed)
    _growth(opened)


def _axes(
    opened: Open, left: st.delta_generator.DeltaGenerator, right: st.delta_generator.DeltaGenerator
) -> tuple[Objective, Objective]:
    axes = {item.name: item for item in opened.axes}
    primary = opened.primary.name
    others = [item.name for item in opened.spec.objectives[1:]]
    across = "trainable_parameters" if "trainable_parameters" in axes else (others or [primary])[0]
    names = list(axes)
    y = left.selectbox("Up", names, index=names.index(primary), key="front y", format_func=figures.readable)
    x = right.selectbox("Across", names, index=names.index(across), key="front x", format_func=figures.readable)
    return axes[x], axes[y]


def _toggles() -> set[str]:
    chosen = st.pills(
        "Show",
        list(_HIDABLE),
        selection_mode="multi",
        default=list(_HIDABLE),
        key="front show",
        format_func=lambda name: _HIDABLE[name],
        help="Dominated: another trial is better in every objective. Stopped early: the pruner ended it at a rung, "
        "so its value stands for less training. Infeasible: breaks the budget or a constraint. Intervals: mean and "
        "95 % interval over repeated runs with other seeds.",
    )
    return set(chosen or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """The picture of the front, and what is said about it.

    Args:
        figure: Itself.
        text: In words.
        n_drawn: Points that it has.
        n_points: Points that there are.
        n_outside: Those that it leaves outside at first.
    """

    figure: go.Figure
    text: str
    n_drawn: int
    n_points: int
    n_outside: int


def _picture(
    opened: Open, x: Objective, y: Objective, hidden: list[str], *, has_intervals: bool, every: bool
) -> _Picture:
    frame, result = opened.frame(x.name, y.name), opened.result
    marks = figures.Marks(
        budget=opened.spec.budget,
        recommended=result.recommended,
        knee=result.knee,
        selected=opened.trial,
        reasons=result.reasons,
        undirected=[item.name for item in (x, y) if not queries.has_direction(opened.spec, item.name)],
    )
    intervals = queries.seed_intervals(frame, y.name) if has_intervals else None
    points, n_points = figures.drawn_points(frame, x=x, y=y, marks=marks, hidden=hidden)
    marks = replace(marks, words=opened.words(_worth_words(points)))
    return _Picture(
        figure=figures.front_figure(frame, x=x, y=y, marks=marks, intervals=intervals, hidden=hidden, every=every),
        text=figures.front_words(frame, x=x, y=y, marks=marks),
        n_drawn=len(points),
        n_points=n_points,
        n_outside=figures.n_outside(frame, x=x, y=y, intervals=intervals, hidden=hidden),
    )


def _chart(opened: Open, frame: pd.DataFrame, x: Objective, y: Objective, shown: set[str]) -> list[int]:
    """Draw the picture; returns the numbers of the trials in the visitor's brush."""
    hidden = [role for role in ("dominated", "pruned", "infeasible", "baseline") if role not in shown]
    has_intervals = "intervals" in shown
    # Read before it is drawn, below the picture.
    every = bool(st.session_state.get(_EVERY))
    what = ("front", x.name, y.name, *hidden, has_intervals, every, opened.trial)
    picture = opened.kept(what, lambda: _picture(opened, x, y, hidden, has_intervals=has_intervals, every=every))
    key = "front chart"
    st.plotly_chart(
        picture.figure,
        key=key,
        on_select=lambda: _selected(
            opened.name,
            st.session_state[key],
            lambda drawn: figures.inside(
                figures.with_both(frame, x, y, hidden), drawn, x=x, y=y, budget=opened.spec.budget
            ),
        ),
        selection_mode=("points", "box", "lasso"),
        config={"displaylogo": False, "scrollZoom": False},
        alt=picture.text,
    )
    _about_picture(picture, every=every)
    study, numbers = st.session_state.get("brush", (None, []))
    return list(numbers) if study == opened.name else []


def _about_picture(picture: _Picture, *, every: bool) -> None:
    text = "Select a point to open its trial; draw a box or lasso (tools above the picture) to filter the table."
    if picture.n_outside:
        text += f" {queries.counted(picture.n_outside, 'point')} far worse than the rest: double-click to see all."
    is_thinned = picture.n_drawn < picture.n_points
    if is_thinned and not every:
        text += (
            f" {picture.n_drawn:,} of {picture.n_points:,} points are drawn, the front and the baselines whole; those "
            "left out lie close to others. Box, lasso and tables know them all."
        )
    st.caption(text)
    if is_thinned:
        st.toggle("Draw every point", key=_EVERY, help="Takes seconds in a browser without a graphics card.")
    with st.expander("The picture in words"):
        st.text(picture.text)


def _worth_words(frame: pd.DataFrame) -> list[int]:
    """The points that are most likely looked at: the front first, then the newest."""
    drawn = frame[frame["role"].notna() & (frame["role"] != "baseline")]
    front = drawn.loc[drawn["role"] == "front", "number"].tolist()
    return (front + drawn.loc[drawn["role"] != "front", "number"].tolist()[::-1])[:_MAX_WORDS]


def _selected(study: str, state: Any, inside: Callable[[Mapping[str, Any]], list[int]]) -> None:
    """Take what was selected: one point opens its trial, a box or lasso is a brush. An empty selection changes nothing.

    A redrawn picture reports an empty selection, so that emptiness cannot mean "none": buttons say that.

    Args:
        study: The study.
        state: What Streamlit tells of the selection.
        inside: Gives the trials within boxes and lassos, those whose points are not drawn included.
    """
    numbers = sorted({int(point["customdata"]) for point in _points(state) if _is_number(point.get("customdata"))})
    if state["selection"].get("box") or state["selection"].get("lasso"):
        st.session_state["brush"] = (study, sorted({*numbers, *inside(state["selection"])}))
    elif numbers:
        _links.choose_trial(numbers[-1])


def _points(state: Any) -> list[dict[str, Any]]:
    found = []
    for point in state["selection"].get("points", []):
        data = point.get("customdata")
        found.append({**point, "customdata": data[0] if isinstance(data, list) and data else data})
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value and not isinstance(value, bool)


def _recommendations(result: queries.Result) -> None:
    with st.container(border=True):
        st.subheader("What to take", anchor=False, help=FRONT_HELP)
        if not result.reasons:
            st.text("Nothing is recommended yet: no search trial within the budget has been measured.")
        for number, reason in sorted(result.reasons.items(), key=lambda item: item[0] != result.recommended):
            st.text(reason)
            st.button(
                f"Open trial {number}",
                key=f"open {number}",
                on_click=_links.choose_trial,
                args=(number,),
                type="primary" if number == result.recommended else "secondary",
            )


def _table(opened: Open, frame: pd.DataFrame, brushed: list[int]) -> None:
    rows = frame[frame["role"].notna()]
    if brushed:
        left, right = st.columns([4, 1], vertical_alignment="center")
        more = f" The {_MAX_ROWS:,} cheapest are listed." if len(brushed) > _MAX_ROWS else ""
        left.caption(f"{queries.counted(len(brushed), 'trial')} in the brush.{more} Select a row to open its trial.")
        right.button("Show all", on_click=lambda: st.session_state.pop("brush", None))
        rows = rows[rows["number"].isin(brushed)]
    else:
        rows = rows[rows["role"] == "front"]
        st.caption(
            f"{queries.counted(len(rows), 'trial')} on the front, cheapest first. Select a row to open its trial."
        )
    names = [item.name for item in opened.spec.objectives]
    columns = dict.fromkeys(["number", "role", *names])
    rows = rows.sort_values(["trainable_parameters", "number"])[list(columns)].head(_MAX_ROWS)
    words = opened.words(rows["number"].tolist()[:_MAX_WORDS])
    table(
        rows.assign(configuration=rows["number"].map(words), role=rows["role"].map(ROLES)),
        key="front table",
        mode="single-row",
        on_pick=_links.choose_trial,
        alt="Table of the trials in the picture with their objectives and configurations.",
        column_config={
            "number": st.column_config.NumberColumn("trial", width="small"),
            "role": st.column_config.TextColumn(width=95, help=ROLE_HELP),
            **{name: _column(name) for name in names},
            "configuration": st.column_config.TextColumn(width="large"),
        },
    )


def _column(name: str) -> Any:
    form = "localized" if name == "trainable_parameters" else "%.4g" if name in COSTS else "%.4f"
    return st.column_config.NumberColumn(figures.readable(name), format=form)


def _growth(opened: Open) -> None:
    st.subheader("How the front grew", anchor=False)
    chosen = st.segmented_control(
        "Over", ["trials", "time"], default="trials", key="growth over", label_visibility="collapsed", required=True
    )
    over = "hours" if chosen == "time" else "n_trials"
    others = tuple(item.token for item in opened.others)
    figure, text, has_rivals = opened.kept(("growth", over, others), lambda: _growth_picture(opened, over))
    st.plotly_chart(figure, key="growth chart", config={"displaylogo": False}, alt=text)
    st.caption(
        "Hypervolume: how much of the space of objectives the front covers, from a point that is worse than every "
        "trial. It grows when the front gets better anywhere, and stands still when it does not."
        + (" Random search: the same search drawn at random, found in this database." if has_rivals else "")
    )
    st.text(text)


def _growth_picture(opened: Open, over: str) -> tuple[go.Figure, str, bool]:
    growth = _cache.growth(opened.url, opened.name, opened.overview.token, opened.spec)
    rivals = _cache.rivals(opened.url, opened.overview, opened.others, opened.frame(), over)
    unit = " x ".join(item.unit or item.name for item in opened.spec.objectives)
    figure = figures.hypervolume_figure(growth, rivals, over=over, unit=unit)
    return figure, figures.hypervolume_words(growth, rivals, over=over), not rivals.empty
