"""Choosing one trial from a list: of few trials all, of many those that are worth it, and any by its number."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from .. import figures, queries
from . import _links
from ._names import ROLES
from ._study import Open

#: Trials that a list holds; with more of them nobody scrolls, and the browser takes long.
_MAX_LISTED = 400


def choice(
    place: st.delta_generator.DeltaGenerator,
    opened: Open,
    frame: pd.DataFrame,
    *,
    label: str,
    key: str,
    number: int | None,
    on_pick: Callable[[int | None], None],
    without: int | None = None,
    help: str | None = None,
) -> int | None:
    """Draw a list of trials to choose one from.

    Args:
        place: Where.
        opened: The study.
        frame: Its trials with roles.
        label: What is chosen.
        key: Of the widget.
        number: The trial that is chosen now; None for none, which makes the list one that can be left empty.
        on_pick: Called with what the visitor chooses.
        without: A trial that cannot be chosen.
        help: Said on hovering.

    Returns:
        `number`, unless there is no such trial to choose.
    """
    known = set(frame["number"]) - {without}
    chosen = number if number in known else None
    listed = queries.worth_listing(frame, opened.primary, _MAX_LISTED)
    options = sorted({*listed, *([] if chosen is None else [chosen])} - {without})
    is_short = len(options) < len(known)
    hints = [help, "Not every trial is listed: the number of any other can be typed." if is_short else None]
    st.session_state[key] = chosen
    place.selectbox(
        label,
        options,
        index=None,
        key=key,
        format_func=_names(opened, frame, options),
        placeholder="a trial" if without is None else "another trial",
        help=" ".join(filter(None, hints)) or None,
        accept_new_options=is_short,
        on_change=lambda: _changed(key, known, on_pick),
    )
    return chosen


def _changed(key: str, known: set[int], on_pick: Callable[[int | None], None]) -> None:
    value = st.session_state[key]
    number = _links.number_of(value)
    if value is None or number in known:
        on_pick(number)
    # Anything else names no trial: the list goes back to what it showed.


def _names(opened: Open, frame: pd.DataFrame, options: list[int]) -> Callable[[int | str], str]:
    """Names for the list: number, role or label, and the objective; words would take too long."""
    name = opened.primary.name
    rows = frame[frame["number"].isin(options)]
    found = {}
    for number, label, role, kind, value in zip(
        rows["number"], rows["label"], rows["role"], rows["kind"], rows[name], strict=True
    ):
        what = label if isinstance(label, str) else ROLES.get(role, kind)
        score = "" if value != value else f", {figures.readable(name)} {value:.4f}"
        found[int(number)] = f"{number}: {what}{score}"
    return lambda option: found.get(option, str(option)) if isinstance(option, int) else option
