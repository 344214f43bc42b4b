"""How well the sampler's model predicts, by its own notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autopeft.store import StudyReader
from autopeft.study import TrialKind

from ._trials import measured

Array = npt.NDArray[np.float64]

#: Judgements read; more are not seen apart.
_MAX_JUDGED = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateFacts:
    """How well the sampler's model predicts, as it noted itself.

    Args:
        frame: Columns ``number``, ``predicted``, ``low``, ``high`` (one standard deviation around), ``measured``: what
            was expected of each trial before it was trained, and what came.
        rank_correlation: Spearman's, of expected with measured; None with fewer than three trials.
        inside: Share of the trials that were measured between ``low`` and ``high``; 0.68 would be honest. None without.
        quality: Columns ``number`` (the trial that it was noted with), ``n`` (configurations that the model knew),
            ``rank_correlation`` (Spearman's, of what was measured with what the model expects of each configuration
            from all others) and ``held_out`` (the same, for whole folds at a time): the sampler's own judgements of its
            model, in the order of the trials.
    """

    frame: pd.DataFrame
    rank_correlation: float | None
    inside: float | None
    quality: pd.DataFrame


def surrogate_facts(reader: StudyReader, study_name: str, frame: pd.DataFrame, name: str) -> SurrogateFacts:
    """Collect predictions and leave-one-out judgements of an objective from the trials' notes.

    Args:
        reader: The database.
        study_name: Study.
        frame: `trials_frame` with the objective's column.
        name: The objective.
    """
    rows = measured(frame, [name], TrialKind.SEARCH)
    values = dict(zip(rows["number"].astype(int), rows[name].astype(float), strict=True))
    noted = reader.notes(study_name, values, "suggestion", "predicted", name)
    table = [
        (number, _number(item, "mean"), _number(item, "low"), _number(item, "high"), values[number])
        for number, item in sorted(noted.items())
        if isinstance(item, Mapping)
    ]
    found = pd.DataFrame(table, columns=["number", "predicted", "low", "high", "measured"]).dropna()
    found = found.astype(dict.fromkeys(["predicted", "low", "high", "measured"], "float64"))
    inside = (
        None
        if found.empty
        else float(((found["measured"] >= found["low"]) & (found["measured"] <= found["high"])).mean())
    )
    return SurrogateFacts(
        frame=found,
        rank_correlation=rank_correlation(found["predicted"].to_numpy(), found["measured"].to_numpy()),
        inside=inside,
        quality=_quality(reader, study_name, frame, name),
    )


def _quality(reader: StudyReader, study_name: str, frame: pd.DataFrame, name: str) -> pd.DataFrame:
    numbers = frame.loc[frame["kind"] == TrialKind.SEARCH.value, "number"].to_numpy()
    if len(numbers) > _MAX_JUDGED:
        # The newest belongs to them.
        numbers = numbers[np.linspace(0, len(numbers) - 1, _MAX_JUDGED).round().astype(int)]
    noted = reader.notes(study_name, [int(number) for number in numbers], "suggestion", "leave_one_out", name)
    rows = [
        (number, _number(item, "n"), _number(item, "rank_correlation"), _number(item, "held_out_rank_correlation"))
        for number, item in sorted(noted.items())
        if isinstance(item, Mapping)
    ]
    found = pd.DataFrame(rows, columns=["number", "n", "rank_correlation", "held_out"])
    return found.astype(dict.fromkeys(["n", "rank_correlation", "held_out"], "float64")).dropna(subset=["n"])


def _number(item: Mapping[str, Any], name: str) -> float | None:
    value = item.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def rank_correlation(left: Array, right: Array) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None for fewer than three pairs or a constant side."""
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    ranks = [pd.Series(side).rank().to_numpy() for side in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
