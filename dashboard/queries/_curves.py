"""Learning curves, and the table of trials for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from autopeft.store import StudyReader
from autopeft.study import TrialState


def curves_frame(reader: StudyReader, study_name: str, numbers: Collection[int], name: str) -> pd.DataFrame:
    """Learning curves as reported: columns ``number``, ``step``, ``epoch`` and ``value``; measured points only."""
    rows = reader.curves(study_name, numbers, name)
    frame = pd.DataFrame(rows, columns=["number", "step", "epoch", "value"])
    return frame.astype({"epoch": "float64", "value": "float64"}).dropna(subset=["value"])


def chosen_trials(
    frame: pd.DataFrame,
    *,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    only_front: bool = False,
    words: Sequence[str] = (),
    texts: pd.Series | None = None,
) -> pd.DataFrame:
    """Trials in some states, of some kinds, with every word in their texts.

    Args:
        frame: `add_roles`.
        states: Values of `TrialState`; empty for all.
        kinds: Values of `TrialKind`; empty for all.
        only_front: Whether only members of the front are wanted.
        words: Words, any case.
        texts: What is searched for them, by the frame's index; None for label, failure and worker.
    """
    mask = pd.Series(True, index=frame.index)
    if states:
        mask &= frame["state"].isin(list(states))
    if kinds:
        mask &= frame["kind"].isin(list(kinds))
    if only_front:
        mask &= frame["role"] == "front"
    if words:
        known = frame[["label", "failure_reason", "worker"]].fillna("")
        searched = known["label"] + " " + known["failure_reason"] + " " + known["worker"]
        if texts is not None:
            searched = searched + " " + texts.reindex(frame.index).fillna("")
        searched = searched.astype(str).str.lower()
        for word in words:
            mask &= searched.str.contains(word.lower(), regex=False).astype(bool)
    return frame[mask]


def failures_frame(reader: StudyReader, study_name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Failed trials with their reasons: columns ``number``, ``reason``, ``message``, ``worker``, ``attempts``."""
    failed = frame[frame["state"] == TrialState.FAILED.value]
    messages = reader.failures(study_name, failed["number"].tolist())
    found = failed[["number", "failure_reason", "worker", "attempts"]].rename(columns={"failure_reason": "reason"})
    found.insert(2, "message", [messages.get(int(number), "") for number in failed["number"]])
    return found.reset_index(drop=True)
