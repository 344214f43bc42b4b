"""One trial in a small space: what it is, what it reached, and where to read on."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.configuration import Configuration
from autopeft.export import format_duration, layer_count
from autopeft.study import Study, Trial

from .. import figures, queries
from . import _links
from ._names import STATES
from ._study import Open


def show_panel(opened: Open, number: int, *, key: str) -> None:
    """Draw a trial's panel: configuration in words and by layer, values, links."""
    trial = opened.reader.trial(opened.name, number)
    pages = st.session_state["pages"]
    with st.container(border=True):
        heading(trial, key=key)
        reason = opened.result.reasons.get(number)
        if reason:
            st.text(reason)
        show_heatmap(opened, trial, key=f"{key} heat map", compact=True)
        st.caption("Sizes by part and layer; on: a module that has no size.")
        show_facts(opened, trial)
        columns = st.columns(2)
        for column, name, label in zip(
            columns, ("Configuration", "Trials"), ("Its modules by layer", "Its curve and its log"), strict=True
        ):
            if name in pages:
                column.page_link(pages[name], label=label, query_params={"study": opened.name, "trial": str(number)})


def heading(trial: Trial, *, key: str) -> None:
    """Draw a trial's number and its configuration in words, with a way to close it."""
    title, close = st.columns([3, 1], vertical_alignment="center")
    title.subheader(f"Trial {trial.number}", anchor=False)
    close.button("Close", key=f"{key} close", type="tertiary", on_click=lambda: _links.choose_trial(None))
    st.text(trial.draft.label or trial.configuration.describe())


def show_facts(opened: Open, trial: Trial) -> None:
    """Draw what is known of a trial."""
    st.dataframe(
        pd.DataFrame(facts(opened, trial), columns=["what", "value"]),
        hide_index=True,
        width="stretch",
        height="content",
        alt=f"Values of trial {trial.number}.",
    )


def show_heatmap(opened: Open, trial: Trial, *, key: str, compact: bool = False) -> None:
    """Draw a trial's configuration by layer."""
    cells = queries.cells_frame(trial.configuration, n_layers(opened, trial.configuration), counts(trial))
    with st.container() if compact else wide(key):
        st.plotly_chart(
            figures.heatmap_figure(cells, compact=compact),
            key=key,
            config={"displayModeBar": False},
            alt=figures.heatmap_words(cells, trial.configuration.describe()),
        )


def wide(key: str) -> st.delta_generator.DeltaGenerator:
    """A place whose content is scrolled sideways on a narrow screen."""
    return st.container(key=f"wide {key}")


def facts(opened: Open, trial: Trial) -> list[tuple[str, str]]:
    """What is known of a trial, in words."""
    rows = [("state", STATES[trial.state.value] + (f": {trial.failure.reason}" if trial.failure else ""))]
    rows.append(("kind", trial.kind.value))
    shown = {item.name for item in opened.spec.objectives}
    for item in opened.axes:
        value = trial.value(item.name)
        if item.name in shown or value is not None:
            rows.append((figures.readable(item.name), figures.shown(value, item)))
    if trial.rung is not None:
        rows.append(("stopped after", f"{100 * trial.rung.share:.0f} % of its steps"))
    if trial.started_at is not None and trial.finished_at is not None:
        rows.append(("duration", format_duration((trial.finished_at - trial.started_at).total_seconds())))
    rows += [("seed", str(trial.draft.seed)), ("attempts", str(trial.attempts))]
    if trial.worker:
        rows.append(("worker", trial.worker))
    return rows


def n_layers(opened: Open, *configurations: Configuration) -> int:
    """Layers of the backbone, as far as the study's settings or the configurations tell."""
    stated = layer_count(Study(spec=opened.spec, trials=()))
    reached = [item.site.layer for one in configurations for item in one.placements if item.site.layer is not None]
    return max([stated, *(layer + 1 for layer in reached)])


def counts(trial: Trial) -> list[int] | None:
    """Trainable parameters of each placement, as the search noted them; None for trials from before it did."""
    noted = trial.notes.get("placement_parameters")
    if isinstance(noted, list) and all(isinstance(item, int) for item in noted):
        return list(noted)
    return None
