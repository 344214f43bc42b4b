"""Is the search well, and what to do where it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

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
    cards = queries.health_cards(frame, opened.spec, points, leases, datetime.now(UTC))
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
