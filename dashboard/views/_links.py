"""Which study and trial the page is about, kept in the address, so that it can be shared and reloaded."""

from __future__ import annotations

import streamlit as st

_STUDY, _TRIAL, _WRITTEN = "study", "trial", "written address"


def adopt_address() -> None:
    """Take study and trial from the address if the visitor came by a link or went back, not by a widget."""
    given = (st.query_params.get(_STUDY), st.query_params.get(_TRIAL))
    if given != (None, None) and given != st.session_state.get(_WRITTEN):
        st.session_state[_STUDY], st.session_state[_TRIAL] = given[0], given[1]
    st.session_state.setdefault(_STUDY, None)
    st.session_state.setdefault(_TRIAL, None)


def write_address() -> None:
    """Put study and trial into the address."""
    chosen = (chosen_study(), st.session_state[_TRIAL])
    written = tuple(None if value is None else str(value) for value in chosen)
    for key, value in zip((_STUDY, _TRIAL), written, strict=True):
        if value is None:
            st.query_params.pop(key, None)
        elif st.query_params.get(key) != value:
            st.query_params[key] = value
    st.session_state[_WRITTEN] = written


def chosen_study() -> str | None:
    """The study's name, which may be of none that exists: it comes from the address."""
    value = st.session_state.get(_STUDY)
    return None if value is None else str(value)


def choose_study(name: str) -> None:
    """Go to a study; another study's trial means nothing there."""
    if chosen_study() not in (None, name):
        st.session_state[_TRIAL] = None
    st.session_state[_STUDY] = name


def chosen_trial() -> int | None:
    """The trial's number; None if none is chosen, or what the address says is no number."""
    value = st.session_state.get(_TRIAL)
    text = "" if value is None else str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def tampered_trial() -> str | None:
    """What the address names as a trial if it cannot be one."""
    value = st.session_state.get(_TRIAL)
    return str(value) if value is not None and chosen_trial() is None else None


def choose_trial(number: int | None) -> None:
    """Look at a trial, or at none."""
    st.session_state[_TRIAL] = number
