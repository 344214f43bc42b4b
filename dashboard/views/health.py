"""Is the search well, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import streamlit as st

from autopeft.store import WorkerRecord

from .. import queries
from ._study import Open

_ICONS = {
    queries.Status.GOOD: (":material/check_circle:", "good"),
    queries.Status.WARNING: (":material/warning:", "look at this"),
    queries.Status.UNKNOWN: (":material/help:", "not known yet"),
}


def show(opened: Open) -> None:
    """Draw the page."""
    frame = opened.frame()
    members = frame.loc[frame["role"] == queries.Role.FRONT.value, "number"].tolist()
    points = queries.params_frame(opened.reader, opened.name, members)
    leases = opened.reader.leases(opened.name)
    records = opened.reader.workers()
    cards = queries.health_cards(frame, opened.spec, points, leases, datetime.now(UTC))
    cards.append(queries.serving(records, opened.overview, opened.reader.driver(opened.name)))
    n_warnings = sum(card.status is queries.Status.WARNING for card in cards)
    st.text(
        f"{n_warnings} of {len(cards)} checks need a look."
        if n_warnings
        else f"None of {len(cards)} checks found anything to do."
    )
    # What needs a look comes first.
    order = [queries.Status.WARNING, queries.Status.UNKNOWN, queries.Status.GOOD]
    cards.sort(key=lambda card: order.index(card.status))
    columns = st.columns(2)
    for i, card in enumerate(cards):
        with columns[i % 2]:
            _card(card)
    _workers(records, opened.name)


def _workers(records: Sequence[WorkerRecord], study: str) -> None:
    st.subheader(
        "Workers",
        anchor=False,
        help="Every process of autopeft worker that this database has heard of within a day, whichever study it "
        "works on. One that lacks what a study needs refuses it, and asks again every minute.",
    )
    if not records:
        st.text("None is known. A search without --executor needs none: it trains its trials itself.")
        return
    config = st.column_config
    st.dataframe(
        queries.workers_frame(records, study),
        hide_index=True,
        width="stretch",
        key="workers table",
        placeholder="",
        column_config={
            "worker": config.TextColumn(pinned=True, width="medium"),
            "this study": config.TextColumn(
                width="large", help="Whether it would train the trials of the study shown here, and if not, why."
            ),
            "has": config.TextColumn(help="What it has to train on, as it says itself."),
            "versions": config.TextColumn(help="Versions of what decides whether it can serve a study."),
            "heard_of": config.DatetimeColumn("last heard of", format="distance"),
        },
        alt="Table of the workers: what each does, whether it refuses this study and why, and when it was heard of.",
    )


def _card(card: queries.Card) -> None:
    icon, words = _ICONS[card.status]
    box = {
        queries.Status.GOOD: st.success,
        queries.Status.WARNING: st.warning,
        queries.Status.UNKNOWN: st.info,
    }[card.status]
    with st.container(border=True):
        box(f"{card.title} {words.capitalize()}.", icon=icon)
        # Findings name failures' reasons: text of a study.
        st.text(card.finding)
        st.text(f"What to do: {card.advice or 'nothing.'}")
