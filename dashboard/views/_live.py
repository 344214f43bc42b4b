"""Keeping the page current: a small part of it asks whether anything changed, and only then is the page drawn again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import streamlit as st

from autopeft.exceptions import AutoPeftError
from autopeft.store import StudyOverview, StudyReader, WorkerRecord
from autopeft.study import TrialState

#: Seconds between looks while the database cannot be read.
RECOVERY_S = 5.0


def interval_s(overview: StudyOverview | None) -> float:
    """Seconds between two looks at a study: often while it is small and busy, seldom when drawing it takes longer.

    Args:
        overview: The study; None for the list of studies.
    """
    if overview is None:
        return 10.0
    is_busy = bool(overview.n_trials[TrialState.RUNNING] or overview.n_trials[TrialState.WAITING])
    n = overview.n_trials_total
    pace = 2.0 if n < 100 else 5.0 if n < 1_000 else 15.0
    return pace if is_busy else max(pace, 10.0)


def watch(
    reader: StudyReader,
    token: str,
    study: str | None,
    every_s: float,
    *,
    follows_points: bool = False,
    follows_workers: bool = False,
) -> None:
    """Draw the note on how current the page is, and draw the page again when the token changes.

    Args:
        reader: The database.
        token: Token of what the page shows.
        study: The study shown; None for all of them.
        every_s: Seconds between looks.
        follows_points: Whether the page shows learning curves of trials at work.
        follows_workers: Whether it shows the workers.
    """

    @st.fragment(run_every=every_s, key="live")
    def look() -> None:
        try:
            now = token_of(reader, study, follows_points=follows_points, follows_workers=follows_workers)
        except AutoPeftError:
            st.rerun()  # the page says what is wrong
        if now != token:
            st.rerun()
        clock = datetime.now(UTC).strftime("%H:%M:%S")
        st.caption(f"Live: last looked at {clock} UTC, looks every {every_s:g} s.")

    look()


def recover(reader: StudyReader) -> None:
    """Draw the page again as soon as the database can be read."""

    @st.fragment(run_every=RECOVERY_S, key="recovery")
    def look() -> None:
        try:
            reader.check()
        except AutoPeftError:
            st.caption(f"Tries again every {RECOVERY_S:g} s.")
            return
        except Exception:
            logging.getLogger(__name__).exception("cannot check the database")
            return
        if st.session_state.pop("is lost", False):
            st.rerun()

    st.session_state["is lost"] = True
    look()


def token_of(
    reader: StudyReader, study: str | None, *, follows_points: bool = False, follows_workers: bool = False
) -> str:
    """The token of a study as it is now, or of all together."""
    overviews = reader.overviews() if study is None else [reader.overview(study)]
    workers = reader.workers() if follows_workers else ()
    return page_token(overviews, follows_points=follows_points, workers=workers)


def page_token(
    overviews: Sequence[StudyOverview], *, follows_points: bool = False, workers: Sequence[WorkerRecord] = ()
) -> str:
    """What changes when these studies do.

    Args:
        overviews: The studies.
        follows_points: Whether points of learning curves count as a change.
        workers: What else counts: that they come and go, work on something else, or refuse a study.
    """
    token = " ".join(f"{item.token}{f'+{item.n_points}' if follows_points else ''}" for item in overviews)
    if not workers:
        return token
    # Alive or not, a worker is heard of all the time.
    said = repr([(item.facts, item.is_expired) for item in workers])
    return f"{token} {hashlib.sha256(said.encode()).hexdigest()[:16]}"
