"""What the trials teach: parameters that matter, and how far models and early measurements can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from autopeft.export import format_duration
from autopeft.objectives import Objective
from autopeft.study import StudySpec, TrialKind

from .. import figures, queries
from . import _cache, _trial
from ._study import Open

#: Trials drawn as lines; more are a solid block.
_MAX_LINES = 300
#: Lines outside a brush that are drawn faintly.
_MAX_FAINT = 200
#: Trials whose points are read; the newest.
_MAX_POINTS = 3000
#: Key of what is brushed in the parallel coordinates.
_BRUSH = "parallel brush"


def show(opened: Open) -> None:
    """Draw the page."""
    axes = {item.name: item for item in opened.axes}
    names = [name for name in axes if name != "trainable_parameters"]
    primary = opened.primary.name
    name = st.selectbox("Explain", names, index=names.index(primary), key="insight value", format_func=figures.readable)
    objective = axes[name]
    frame = opened.frame(name)
    rows = queries.measured(frame, [name], TrialKind.SEARCH)
    if rows.empty:
        st.info("No search trial has been measured yet; there is nothing to learn from.")
        return
    left, right = st.columns(2)
    with left:
        _importance(opened, name)
    with right:
        _left_out(opened, objective, frame)
    _parallel(opened, objective)
    facts = _cache.surrogate(opened.url, opened.name, opened.overview.token, name, frame)
    left, right = st.columns(2)
    with left:
        _surrogate(opened, objective, facts)
    with right:
        _quality(opened, name, facts)
    _fidelity(opened, frame, objective)


def look_ahead(opened: Open) -> None:
    """Look up what the page shows at first."""
    objective, frame = opened.primary, opened.frame()
    if queries.measured(frame, [objective.name], TrialKind.SEARCH).empty:
        return
    about = (opened.url, opened.name, opened.overview.token, objective.name)
    _axes(*about, opened.spec, objective)
    _cache.surrogate(*about, frame)
    _cache.fidelity(*about, frame, objective)


@st.cache_resource(max_entries=12, show_spinner=False)
def _points(url: str, study: str, token: str, name: str, _spec: StudySpec) -> pd.DataFrame:
    rows = _rows(url, study, token, name, _spec)
    return queries.params_frame(_cache.open_reader(url), study, rows["number"].tolist())


@st.cache_resource(max_entries=24, show_spinner=False)
def _found(url: str, study: str, token: str, name: str, _spec: StudySpec) -> queries.Importance:
    rows = _rows(url, study, token, name, _spec)
    values = dict(zip(rows["number"].astype(int), rows[name].astype(float), strict=True))
    return queries.importance(_points(url, study, token, name, _spec), values)


def _rows(url: str, study: str, token: str, name: str, spec: StudySpec) -> pd.DataFrame:
    names = tuple(dict.fromkeys([*_cache.objective_names(spec), name]))
    return queries.measured(_cache.trials(url, study, token, names, spec), [name], TrialKind.SEARCH).tail(_MAX_POINTS)


def _importance(opened: Open, name: str) -> None:
    st.subheader(
        "Which parameters matter",
        anchor=False,
        help="A random forest predicts trials that it has not seen. A parameter is important if shuffling its values "
        "makes these predictions worse. It says what moved the value among the trials of this search, which were not "
        "drawn at random.",
    )
    found = _found(opened.url, opened.name, opened.overview.token, name, opened.spec)
    text = figures.importance_words(found.frame, found.explained, found.n_trials, found.doubt)
    if found.doubt:
        st.warning(f"Unreliable: {found.doubt}.", icon=":material/warning:")
    else:
        st.success(
            f"Reliable: {found.n_trials} trials, {100 * (found.explained or 0):.0f} % of the differences between "
            "unseen trials explained.",
            icon=":material/check_circle:",
        )
    st.plotly_chart(
        opened.kept(
            ("importance", name), lambda: figures.importance_figure(found.frame, is_reliable=found.doubt is None)
        ),
        key="importance",
        config={"displayModeBar": False},
        alt=text,
    )
    st.text(text)


def _left_out(opened: Open, objective: Objective, frame: pd.DataFrame) -> None:
    st.subheader(
        "How well the sampler's model predicts",
        anchor=False,
        help="The sampler suggests trials by a model of the trials so far, the surrogate. Here the newest one predicts "
        "each trial from all others (leave-one-out), and that meets what was measured. What it has learned of how far "
        "configurations are alike comes from all trials, so that it looks a little better than it is.",
    )
    facts = opened.kept(
        ("left out facts", objective.name), lambda: queries.left_out_facts(opened.attributes, frame, objective.name)
    )
    st.plotly_chart(
        opened.kept(("left out", objective.name), lambda: figures.left_out_figure(facts.frame, objective)),
        key="left out",
        config={"displayModeBar": False},
        alt=f"Scatter plot of {objective.name} as expected from all other trials against measured for "
        f"{len(facts.frame)} trials.",
    )
    _most(facts.frame)
    words = _agreement_words(facts)
    st.text(
        f"{words} The model knew {queries.counted(facts.n_search or 0, 'search trial')}."
        if words
        else "Not measured: the sampler of this study has no model, or it has not learned this value yet."
    )


def _surrogate(opened: Open, objective: Objective, facts: queries.SurrogateFacts) -> None:
    st.subheader(
        "What it expected before training",
        anchor=False,
        help="Before a trial is trained the sampler notes what its model expects; here that meets what was measured. "
        "Each is a prediction of a trial that nobody had seen, by the model of that time.",
    )
    st.plotly_chart(
        opened.kept(("surrogate", objective.name), lambda: figures.surrogate_figure(facts.frame, objective)),
        key="surrogate",
        config={"displayModeBar": False},
        alt=f"Scatter plot of expected against measured {objective.name} for {len(facts.frame)} trials.",
    )
    _most(facts.frame)
    st.text(_agreement_words(facts) or "Not measured: no trial came from a model, or the sampler notes no predictions.")


def _most(frame: pd.DataFrame) -> None:
    if len(frame) > figures.MOST_PREDICTIONS:
        st.caption(f"The picture shows the newest {figures.MOST_PREDICTIONS}; the words below are about all.")


def _agreement_words(facts: queries.LeftOutFacts | queries.SurrogateFacts) -> str:
    parts = []
    if facts.rank_correlation is not None:
        parts.append(
            f"Expected and measured rank {len(facts.frame):,} trials alike with a correlation of "
            f"{facts.rank_correlation:.2f} (1 is perfect, 0 is chance)."
        )
    if facts.inside is not None:
        parts.append(f"{100 * facts.inside:.0f} % lie within one standard deviation; 68 % would be honest.")
    return " ".join(parts)


def _quality(opened: Open, name: str, facts: queries.SurrogateFacts) -> None:
    st.subheader(
        "How good its model is, as it learns",
        anchor=False,
        help="Leave-one-out: at every suggestion the sampler asks its model for each configuration from all others, "
        "and compares the order with the one measured (Spearman's rank correlation). A fifth left out is harder, "
        "because near neighbors are missing too.",
    )
    text = figures.quality_words(facts.quality)
    st.plotly_chart(
        opened.kept(("quality", name), lambda: figures.quality_figure(facts.quality)),
        key="model quality",
        config={"displayModeBar": False},
        alt=text,
    )
    st.text(text)


@st.cache_resource(max_entries=12, show_spinner=False)
def _axes(url: str, study: str, token: str, name: str, _spec: StudySpec, _objective: Objective) -> figures.Parallel:
    points = _points(url, study, token, name, _spec)
    rows = _rows(url, study, token, name, _spec)
    values = dict(zip(rows["number"].astype(int), rows[name].astype(float), strict=True))
    # What matters most stands first; there is no room for everything.
    first = _found(url, study, token, name, _spec).frame["parameter"].tolist()
    order = ["number", *first, *points.columns.difference(["number", *first])]
    return figures.parallel_of(points[order], values, _objective)


@st.fragment
def _parallel(opened: Open, objective: Objective) -> None:
    """Draw the lines; brushing draws only them again."""
    st.subheader("Parameters and results together", anchor=False)
    best = st.slider(
        "Share of the trials shown, best first (%)",
        5,
        100,
        100,
        5,
        key="insight share",
        help="With a brush: share of the trials that pass it.",
    )
    lines = _axes(opened.url, opened.name, opened.overview.token, objective.name, opened.spec, objective)
    about = (opened.name, objective.name)
    brush = _brush(about)
    passes = figures.passing(lines, brush)
    order = np.argsort(-lines.quality, kind="stable")
    kept, others = order[passes[order]], order[~passes[order]]
    kept = _evenly(kept[: max(2, round(len(kept) * best / 100))], _MAX_LINES)
    shown = lines.numbers[kept].tolist()
    text = figures.parallel_words(len(shown), objective)
    # Another brush is another picture: nothing of the last drag stays on it.
    key = f"parallel {sorted(brush.items())}"
    drawn = [*shown, *lines.numbers[_evenly(others, _MAX_FAINT)].tolist()]
    figure = opened.kept(
        ("parallel", key, best, objective.name),
        lambda: figures.parallel_figure(lines, drawn, passed=shown, brush=brush),
    )
    with _trial.wide("parallel"):
        st.plotly_chart(
            figure,
            key=key,
            on_select=lambda: _add_to_brush(about, lines, st.session_state[key]),
            # Plotly takes a box without width for a lasso.
            selection_mode=("box", "lasso"),
            config={"displayModeBar": False},
            alt=text,
        )
    words, button = st.columns([5, 1], vertical_alignment="center")
    n, n_passing = len(lines.numbers), int(passes.sum())
    words.caption(
        (f"{n_passing:,} of {n:,} trials pass the brush" if brush else f"{n:,} trials")
        + (f", {len(shown):,} of them drawn, from the best to the worst" if len(shown) < n_passing else "")
        + ". Bluer is better. Draw a box over an axis to keep only the lines that pass there; boxes over several axes "
        "add up. Off: the parameter had no meaning in that trial. The slider above keeps the best, without a mouse."
    )
    if brush:
        button.button("Show all lines", on_click=lambda: st.session_state.pop(_BRUSH, None))


def _evenly(rows: npt.NDArray[np.intp], most: int) -> npt.NDArray[np.intp]:
    """At most so many of them, at even distances, the first among them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _brush(about: tuple[str, str]) -> dict[str, tuple[float, float]]:
    """What is brushed; a brush belongs to one study and one value."""
    known, brush = st.session_state.get(_BRUSH, (None, {}))
    return dict(brush) if known == about else {}


def _add_to_brush(about: tuple[str, str], lines: figures.Parallel, state: Any) -> None:
    shapes = [item for kind in ("box", "lasso") for item in state["selection"].get(kind) or ()]
    found = figures.brushed(lines, [item for item in shapes if item["x"] and item["y"]])
    if found:
        st.session_state[_BRUSH] = (about, {**_brush(about), **found})


def _fidelity(opened: Open, frame: pd.DataFrame, objective: Objective) -> None:
    st.subheader(
        "Do early measurements tell the end",
        anchor=False,
        help="Rank correlation (Kendall's tau) of the values early in training with the values at its end, over trials "
        "that came to the end: 1 means the same order, 0 chance. Rungs are the steps at which a pruner may stop a "
        "trial; it does so only where the correlation is high enough.",
    )
    found = _cache.fidelity(opened.url, opened.name, opened.overview.token, objective.name, frame, objective)
    rungs = queries.rung_frame(opened.attributes)
    rungs = rungs[rungs["objective"] == objective.name]
    text = figures.fidelity_words(found, rungs)
    st.plotly_chart(
        opened.kept(("fidelity", objective.name), lambda: figures.fidelity_figure(found, rungs)),
        key="fidelity",
        config={"displayModeBar": False},
        alt=text,
    )
    st.text(text)
    report = opened.attributes.get("pruning")
    if isinstance(report, Mapping):
        _pruning(report)


def _pruning(report: Mapping[str, Any]) -> None:
    """What stopping trials saved and may have cost, as the search reported it."""
    saved, share, lost = report.get("time_saved_s"), report.get("share_saved"), report.get("lost")
    parts = [f"Stopped early: {_counted(report.get('n_pruned'))}."]
    if isinstance(saved, int | float) and isinstance(share, int | float):
        parts.append(f"Saved: {format_duration(saved)}, {share:.0%} of the search's training.")
    if isinstance(lost, Mapping) and lost.get("n_controls"):
        parts.append(
            f"Trials that the rule would have stopped and that ran on all the same: {_counted(lost['n_controls'])}, "
            f"of which on the front: {lost.get('n_on_front', 0)}."
        )
    st.text(" ".join(parts))


def _counted(value: object) -> str:
    return queries.counted(value, "trial") if isinstance(value, int) else "not noted"
