"""Frames of trials without a database."""

from __future__ import annotations

import pandas as pd
from hypothesis import strategies as st

from autopeft.study import Study

#: Accuracy (None: failed) and trainable parameters of any trials.
points = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 6).map(lambda n: n / 8)), st.integers(0, 9).map(lambda n: 700 * n)),
    max_size=12,
)


def frame_of(study: Study) -> pd.DataFrame:
    moment = pd.Timestamp("2026-01-01", tz="UTC")
    rows = [
        {
            "number": item.number,
            "kind": item.kind.value,
            "state": item.state.value,
            "trainable_parameters": item.draft.trainable_parameters,
            "accuracy": item.value("accuracy"),
            "started_at": moment,
            "finished_at": moment + pd.Timedelta(hours=item.number + 1),
        }
        for item in study.trials
    ]
    columns = ["number", "kind", "state", "trainable_parameters", "accuracy", "started_at", "finished_at"]
    return pd.DataFrame(rows, columns=columns).astype({"accuracy": "float64", "trainable_parameters": "float64"})
