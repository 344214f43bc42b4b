"""Tables whose rows are selected: a selection belongs to trials, wherever their rows come to stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd
import streamlit as st


def table(
    frame: pd.DataFrame,
    *,
    key: str,
    mode: Literal["single-row", "multi-row"],
    on_pick: Callable[[int], None],
    alt: str,
    **options: Any,
) -> list[int]:
    """Draw a table of trials.

    Args:
        frame: Rows with a column ``number``.
        key: Of the widget.
        mode: Whether one row or several can be selected.
        on_pick: Called with the last selected number when the visitor selects.
        alt: The table's name for those who do not see it.
        options: Passed to `st.dataframe`.

    Returns:
        Numbers of the selected trials that are in the table.
    """
    numbers = [int(number) for number in frame["number"]]
    picked = _keep(key, numbers)
    st.dataframe(
        frame,
        hide_index=True,
        width="stretch",
        key=key,
        on_select=lambda: _picked(key, on_pick),
        selection_mode=mode,
        placeholder="",
        alt=alt,
        **options,
    )
    return picked


def selected_rows(key: str) -> list[int]:
    """Rows that are selected now, in the order of the table as it was drawn."""
    state = st.session_state.get(key)
    return [] if state is None else [int(row) for row in state["selection"]["rows"]]


def _keep(key: str, numbers: Sequence[int]) -> list[int]:
    """Move the selection along with its trials if the rows have changed; returns the trials selected."""
    drawn: Sequence[int] = st.session_state.get(f"{key} drawn", ())
    rows = selected_rows(key)
    picked = [drawn[row] for row in rows if row < len(drawn)]
    if list(drawn) != list(numbers) and rows:
        places = {number: i for i, number in enumerate(numbers)}
        moved = [places[number] for number in picked if number in places]
        if moved != rows:
            st.session_state[key] = {"selection": {"rows": moved, "columns": [], "cells": []}}
        picked = [numbers[row] for row in moved]
    st.session_state[f"{key} drawn"] = list(numbers)
    return picked


def _picked(key: str, on_pick: Callable[[int], None]) -> None:
    drawn: Sequence[int] = st.session_state.get(f"{key} drawn", ())
    rows = [row for row in selected_rows(key) if row < len(drawn)]
    if rows:
        on_pick(int(drawn[rows[-1]]))
