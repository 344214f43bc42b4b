"""Every trial: table, learning curves, failures."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.study import Trial, TrialKind, TrialState

from .. import figures, queries
from . import _links, _trial
from ._names import ROLE_HELP, ROLES, STATE_HELP, STATES
from ._study import Open
from ._table import table

#: Rows whose configuration is put into words; filters narrow larger studies down.
_MAX_WORDS = 500
#: Trials whose configurations are searched for words; of larger studies labels, failures and workers are.
_MAX_SEARCHED = 20_000
#: Curves drawn at once; more cannot be told apart.
_MAX_CURVES = 12
_COSTS = ("wall_time_s", "peak_memory_bytes")


def show(opened: Open) -> None:
    """Draw the page."""
    names = cost_names(opened)
    frame = opened.frame(*names)
    if frame.empty:
        st.info("This study has no trials yet; they appear here.")
        return
    chosen = _filters(opened, frame)
    st.caption(
        f"{len(chosen):,} of {queries.counted(len(frame), 'trial')}. Select rows to compare learning curves; the last "
        "one is opened."
    )
    picked = table(
        _rows(opened, chosen, names),
        key="trials table",
        mode="multi-row",
        on_pick=_links.choose_trial,
        height=420 if len(chosen) > 11 else "content",
        column_config=_columns(opened),
        alt="Table of trials with state, objectives, costs, worker and configuration.",
    )
    # A generator: the file is only written when somebody wants it.
    st.download_button(
        "Download these trials as CSV",
        data=lambda: _csv(opened, chosen),
        file_name=queries.file_name(opened.name, "trials.csv"),
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
    if opened.trial is not None:
        _details(opened, opened.reader.trial(opened.name, opened.trial))
    _curves(opened, frame, picked)
    _failures(opened, frame)


def cost_names(opened: Open) -> list[str]:
    """Names of the costs that are columns of the table."""
    return [item.name for item in opened.axes if item.name in _COSTS]


def _filters(opened: Open, frame: pd.DataFrame) -> pd.DataFrame:
    text, state, kind, front = st.columns([3, 2, 2, 1], vertical_alignment="bottom")
    words = text.text_input(
        "Search", key="trials text", placeholder="words of configuration, label, failure, worker"
    ).split()
    states = state.multiselect(
        "State",
        list(STATES),
        key="trials states",
        format_func=STATES.__getitem__,
        placeholder="all",
        help=STATE_HELP,
    )
    kinds = kind.multiselect("Kind", [item.value for item in TrialKind], key="trials kinds", placeholder="all")
    only_front = front.toggle("Front only", key="trials front")
    texts = None
    if words and len(frame) <= _MAX_SEARCHED:
        texts = frame["number"].map(opened.words(frame["number"].tolist()))
    return queries.chosen_trials(frame, states=states, kinds=kinds, only_front=only_front, words=words, texts=texts)


def _rows(opened: Open, chosen: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """What the table shows, in words for people; the file to download keeps the words of the program."""
    objectives = [item.name for item in opened.spec.objectives]
    columns = dict.fromkeys(
        [
            "number",
            "state",
            "kind",
            "role",
            *objectives,
            "trainable_parameters",
            *names,
            "duration_s",
            "attempts",
            "seed",
            "worker",
            "failure_reason",
        ]
    )
    rows = chosen[list(columns)].copy()
    if "peak_memory_bytes" in rows:
        rows["peak_memory_bytes"] = rows["peak_memory_bytes"] / 2**20
    rows["state"] = rows["state"].map(STATES)
    rows["role"] = rows["role"].map(ROLES)
    of = " of " + chosen["parent"].astype("string")
    rows["kind"] = rows["kind"].astype("string") + of.where(rows["kind"] == TrialKind.CONFIRMATION.value, "").fillna("")
    words = opened.words(chosen["number"].tolist()[:_MAX_WORDS])
    labels = chosen["label"]
    rows.insert(4, "configuration", labels.where(labels.notna(), chosen["number"].map(words)))
    return rows


def _columns(opened: Open) -> dict[str, object]:
    config = st.column_config
    found: dict[str, object] = {
        "number": config.NumberColumn("trial", width="small", pinned=True),
        "state": config.TextColumn(width=95, help=STATE_HELP),
        "configuration": config.TextColumn(width="large"),
        "kind": config.TextColumn(
            width=130, help="Search, baseline, or the confirmation of another trial with other seeds."
        ),
        "trainable_parameters": config.NumberColumn("parameters", format="localized", help="Without the task head."),
        "wall_time_s": config.NumberColumn("training time (s)", format="%.1f"),
        "peak_memory_bytes": config.NumberColumn("peak memory (MiB)", format="%.0f"),
        "duration_s": config.NumberColumn(
            "duration (s)", format="%.1f", help="From the claim by a worker to the end, loading and measuring included."
        ),
        "attempts": config.NumberColumn(help="How often a worker has claimed it; more than 1: a worker was lost."),
        "role": config.TextColumn(width=95, help=ROLE_HELP),
        "failure_reason": config.TextColumn("failure"),
    }
    for item in opened.spec.objectives:
        if item.name not in found:
            found[item.name] = config.NumberColumn(figures.readable(item.name), format="%.4f")
    return found


def _csv(opened: Open, chosen: pd.DataFrame) -> bytes:
    names = [item.name for item in opened.axes]
    whole = opened.frame(*names)
    rows = whole[whole["number"].isin(chosen["number"])].copy()
    words = opened.words(rows["number"].tolist())
    rows.insert(4, "configuration", rows["number"].map(words))
    for column in rows.columns:
        if rows[column].dtype == object or pd.api.types.is_string_dtype(rows[column]):
            rows[column] = rows[column].map(_no_formula)
    return rows.to_csv(index=False).encode()


def _no_formula(value: object) -> object:
    """Spreadsheets run cells that begin like formulas."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _curves(opened: Open, frame: pd.DataFrame, picked: list[int]) -> None:
    st.subheader("Learning curves", anchor=False)
    objective = opened.primary
    numbers = list(dict.fromkeys([*picked, *([] if opened.trial is None else [opened.trial])]))
    if not numbers:
        numbers = _worth_a_curve(opened, frame)
    shown = numbers[:_MAX_CURVES]
    curves = queries.curves_frame(opened.reader, opened.name, shown, objective.name)
    rows = frame[frame["number"].isin(shown)]
    states = dict(zip(rows["number"], rows["state"], strict=True))
    rungs = queries.rung_steps(opened.attributes)
    text = figures.curves_words(curves, states, objective)
    st.plotly_chart(
        figures.curves_figure(curves, states, objective, rungs=rungs),
        key="curves",
        config={"displaylogo": False},
        alt=text,
    )
    more = f" Only {_MAX_CURVES} of {len(numbers)} curves are drawn." if len(numbers) > len(shown) else ""
    st.caption(
        "Measured on the search split while training. A larger last point says why a curve ends early: a triangle was "
        "stopped by the pruner, a cross failed, a ring is still running."
        + (" Dotted lines are rungs: the steps at which the pruner decides who goes on." if rungs else "")
        + more
    )
    with st.expander("The picture in words"):
        st.text(text)


def _worth_a_curve(opened: Open, frame: pd.DataFrame) -> list[int]:
    """The front, what is running, and what was stopped last; without any of these what failed last."""
    front = frame.loc[frame["role"] == queries.Role.FRONT.value, "number"].tolist()
    running = frame.loc[frame["state"] == TrialState.RUNNING.value, "number"].tolist()
    stopped = frame.loc[frame["state"] == TrialState.PRUNED.value, "number"].tolist()
    failed = frame.loc[frame["state"] == TrialState.FAILED.value, "number"].tolist()
    chosen = dict.fromkeys([*running[:3], *front[:6], *stopped[-3:]]) or dict.fromkeys(failed[-6:])
    return [int(number) for number in chosen]


def _details(opened: Open, trial: Trial) -> None:
    with st.container(border=True):
        _trial.heading(trial, key="trials")
        left, right = st.columns(2)
        with left:
            _trial.show_facts(opened, trial)
        with right:
            if trial.failure is not None:
                st.error("This trial failed.", icon=":material/error:")
            _why(trial)


def _why(trial: Trial) -> None:
    """Where the suggestion came from, and why the trial failed."""
    note = trial.notes.get("suggestion")
    if isinstance(note, dict):
        source = str(note.get("source", "")).replace("_", " ")
        st.text(f"Suggested by: {source or 'not noted'}" + (f"; {note['why']}" if note.get("why") else ""))
    if trial.failure is None:
        return
    st.text(f"{trial.failure.reason}: {trial.failure.message}")
    if trial.failure.traceback:
        st.code(trial.failure.traceback, language="python", wrap_lines=True)


def _failures(opened: Open, frame: pd.DataFrame) -> None:
    failed = queries.failures_frame(opened.reader, opened.name, frame)
    st.subheader("Failures", anchor=False)
    if failed.empty:
        st.text("No trial failed.")
        return
    table(
        failed,
        key="failures table",
        mode="single-row",
        on_pick=_links.choose_trial,
        column_config={"number": st.column_config.NumberColumn("trial", width="small")},
        alt="Table of failed trials with reason and message.",
    )
    st.caption("Select a row: its traceback stands below the table of trials.")
