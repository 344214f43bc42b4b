"""Configurations by layer: one, two side by side, and what good ones have in common."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.export import format_count
from autopeft.study import Trial

from .. import figures, queries
from . import _links, _trial
from ._choice import choice
from ._names import PLACE_HELP
from ._study import Open

#: Members of the front that are averaged over; more would have to be a front of thousands.
_MAX_AVERAGED = 500


def show(opened: Open) -> None:
    """Draw the page."""
    frame = opened.frame()
    if frame.empty:
        st.info("This study has no trials yet; their configurations appear here.")
        return
    number = opened.trial
    if number is None:
        result = opened.result
        number = next(
            (item for item in (result.recommended, result.knee) if item is not None), int(frame["number"].iloc[0])
        )
    left, right = st.columns(2)
    first = choice(
        left,
        opened,
        frame,
        label="Trial",
        key="configuration trial",
        number=number,
        on_pick=_links.choose_trial,
    )
    first = number if first is None else first
    second = choice(
        right,
        opened,
        frame,
        label="Compare with",
        key="configuration partner",
        number=_links.chosen_partner(),
        on_pick=_links.choose_partner,
        without=first,
    )
    trial = opened.reader.trial(opened.name, first)
    if second is None:
        _one(opened, trial)
    else:
        _two(opened, trial, opened.reader.trial(opened.name, second))
    _average(opened, frame)


def _one(opened: Open, trial: Trial) -> None:
    st.text(trial.configuration.describe())
    _trial.show_heatmap(opened, trial, key="configuration heat map")
    _legend(trial)


def _legend(*trials: Trial) -> None:
    known = all(_trial.counts(trial) is not None for trial in trials)
    third = " and trainable parameters, which shade it" if known else "; the size shades it"
    missing = "" if known else " How many parameters each place has was not noted when this trial was suggested."
    st.caption(
        f"Rows are parts of a layer, columns are layers. A cell says module type, size{third}. Size is a LoRA rank, "
        f"an adapter's width or a prefix length.{missing}",
        help=PLACE_HELP,
    )


def _two(opened: Open, first: Trial, second: Trial) -> None:
    table = queries.difference_table(first.configuration, second.configuration)
    counts = [_trial.counts(item) for item in (first, second)]
    layers = _trial.n_layers(opened, first.configuration, second.configuration)
    cells = queries.compared_cells(first.configuration, second.configuration, layers, counts)
    for column, trial, side in zip(st.columns(2), (first, second), cells, strict=True):
        with column:
            st.subheader(f"Trial {trial.number}", anchor=False)
            st.text(trial.draft.label or trial.configuration.describe())
            with _trial.wide(f"compared {trial.number}"):
                st.plotly_chart(
                    figures.heatmap_figure(side, only_differences=True),
                    key=f"compared {trial.number}",
                    config={"displayModeBar": False},
                    alt=figures.heatmap_words(side, trial.configuration.describe()),
                )
    st.caption(
        "Only cells that differ are shaded and named; = marks a module that both have, none one that is missing."
    )
    values = pd.DataFrame(
        [
            (name, left, right)
            for (name, left), (_, right) in zip(_values(opened, first), _values(opened, second), strict=True)
            if left != right
        ],
        columns=["where", "first", "second"],
    )
    names = {"where": "what", "first": f"trial {first.number}", "second": f"trial {second.number}"}
    whole = pd.concat([values, table], ignore_index=True).rename(columns=names)
    if whole.empty:
        st.info("The two trials have the same configuration and the same results.")
        return
    st.dataframe(whole, hide_index=True, width="stretch", alt="Everything in which the two trials differ.")


def _values(opened: Open, trial: Trial) -> list[tuple[str, str]]:
    rows = [(figures.readable(item.name), figures.shown(trial.value(item.name), item)) for item in opened.axes]
    return [*rows, ("training examples", format_count(trial.draft.fidelity.train_examples))]


def _average(opened: Open, frame: pd.DataFrame) -> None:
    st.subheader("What good configurations tune", anchor=False, help=PLACE_HELP)
    members = frame.loc[frame["role"] == queries.Role.FRONT.value, "number"].tolist()[:_MAX_AVERAGED]
    if not members:
        st.text("There is no front yet.")
        return
    configurations = opened.reader.configurations(opened.name, members)
    noted = opened.reader.notes(opened.name, members, "placement_parameters")
    order = sorted(configurations)
    counts = {i: noted[number] for i, number in enumerate(order) if isinstance(noted.get(number), list)}
    found = [configurations[number] for number in order]
    cells = queries.average_cells(found, _trial.n_layers(opened, *found), counts)
    text = figures.average_words(cells, len(found))
    with _trial.wide("average"):
        st.plotly_chart(figures.average_figure(cells), key="average", config={"displayModeBar": False}, alt=text)
    st.caption("Share of the front's members that have any module at a place, and the mean size of those that do.")
    st.text(text)
