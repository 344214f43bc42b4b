"""Which study and trials the page is about, kept in the address, so that it can be shared and reloaded."""

from __future__ import annotations

import streamlit as st

_STUDY, _TRIAL, _PARTNER, _WRITTEN = "study", "trial", "with", "written address"
_KEYS = (_STUDY, _TRIAL, _PARTNER)


def adopt_address() -> None:
    """Take study and trials from the address if the visitor came by a link or went back, not by a widget."""
    given = tuple(st.query_params.get(key) for key in _KEYS)
    is_named = any(value is not None for value in given)
    for key, value in zip(_KEYS, given, strict=True):
        if is_named and given != st.session_state.get(_WRITTEN):
            st.session_state[key] = value
        st.session_state.setdefault(key, None)


def write_address() -> None:
    """Put study and trials into the address."""
    written = tuple(None if (value := st.session_state[key]) is None else str(value) for key in _KEYS)
    for key, value in zip(_KEYS, written, strict=True):
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
        st.session_state[_TRIAL] = st.session_state[_PARTNER] = None
    st.session_state[_STUDY] = name


def chosen_trial() -> int | None:
    """The trial's number; None if none is chosen, or what the address says is no number."""
    return number_of(st.session_state.get(_TRIAL))


def chosen_partner() -> int | None:
    """The number of the trial that the chosen one is compared with; None as for `chosen_trial`."""
    return number_of(st.session_state.get(_PARTNER))


def unknown_trials(n_trials: int) -> bool:
    """Whether the address names a trial that is not among the first `n_trials`, or that cannot be one."""
    for key in (_TRIAL, _PARTNER):
        number, is_named = number_of(st.session_state.get(key)), st.session_state.get(key) is not None
        if is_named and (number is None or number >= n_trials):
            return True
    return False


def forget_trials() -> None:
    """Look at no trial, and compare none."""
    st.session_state[_TRIAL] = st.session_state[_PARTNER] = None


def choose_partner(number: int | None) -> None:
    """Compare the chosen trial with another, or with none."""
    st.session_state[_PARTNER] = number


def number_of(value: object) -> int | None:
    """A trial's number from what somebody wrote; None if it is none."""
    text = "" if value is None else str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def choose_trial(number: int | None) -> None:
    """Look at a trial, or at none."""
    st.session_state[_TRIAL] = number
