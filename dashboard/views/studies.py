"""Every study of the database."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from autopeft.export import format_duration
from autopeft.store import StudyOverview, StudyReader

from .. import queries
from . import _cache, _links

_HELP = {
    "state": "Running: a worker has a trial. Waiting: trials wait for a worker. Finished: none is left.",
    "best": "Best search trial within the parameter budget, by the study's metric on the search split.",
    "baseline": "Best baseline within the same budget, at the same training.",
    "gain": "Best minus baseline, signed so that more is better. Not confirmed with other seeds here.",
    "hypervolume": "How much of the space of objectives the front covers, from a point that is worse than every trial "
    "of its study: it tells how a study grows, not which of two studies is better.",
    "pruned": "Stopped early: the pruner ended its training because it would not have reached the front.",
    "time": "Time that workers spent on finished trials, added up.",
}


def show(url: str, reader: StudyReader, overviews: Sequence[StudyOverview]) -> None:
    """Draw the page."""
    st.header("Studies")
    if not overviews:
        st.info("There is no study in this database yet. It appears here as soon as a search is started:")
        st.code("autopeft search --task stdlib/topics --budget 1%", language="bash")
        return
    frame = queries.studies_frame(overviews, lambda item: dict(_cache.facts(url, item.name, item.token, item)))
    left, middle, right = st.columns([3, 2, 2])
    text = left.text_input("Search", key="studies text", placeholder="words of name, task or backbone")
    tasks = middle.multiselect("Task", sorted(frame["task"].unique()), key="studies tasks", placeholder="all")
    states = right.multiselect("State", sorted(frame["state"].unique()), key="studies states", placeholder="all")
    chosen = queries.filtered(frame, text=text, tasks=tasks, states=states)
    st.caption(f"{len(chosen)} of {len(frame)} studies. Select a row to open the study.")
    event = st.dataframe(
        _for_people(chosen),
        hide_index=True,
        width="stretch",
        key="studies table",
        on_select="rerun",
        selection_mode="single-row",
        placeholder="",
        column_config=_columns(),
        alt="Table of studies with task, budget, number of trials in each state, best result, baseline and time spent.",
    )
    rows = event.selection.rows
    if rows and rows[0] < len(chosen):
        _links.choose_study(str(chosen["study"].iloc[rows[0]]))
        del st.session_state["studies table"]
        st.switch_page(st.session_state["pages"]["Front"])


def _for_people(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame.drop(columns=["budget_parameters", "time_spent_s"])
    shown.insert(list(shown.columns).index("last_activity"), "time", frame["time_spent_s"].map(format_duration))
    return shown


def _columns() -> dict[str, object]:
    config = st.column_config
    numbers = {
        name: config.NumberColumn(format=form, help=_HELP[name])
        for name, form in (("best", "%.4f"), ("baseline", "%.4f"), ("gain", "%+.4f"), ("hypervolume", "%.4g"))
    }
    return {
        "study": config.TextColumn(width="medium", pinned=True),
        "state": config.TextColumn(help=_HELP["state"]),
        "pruned": config.NumberColumn("stopped", help=_HELP["pruned"]),
        "time": config.TextColumn("time spent", help=_HELP["time"]),
        "last_activity": config.DatetimeColumn("last activity", format="distance"),
        **numbers,
    }
