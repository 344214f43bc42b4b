"""What the sampler's newest model predicts of each trial from all others, as the search keeps it with the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from autopeft.study import TrialState

from ._surrogate import rank_correlation

_NUMBERS = ("predicted", "low", "high", "measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutFacts:
    """Leave-one-out predictions of one objective.

    Args:
        frame: Columns ``number``, ``predicted``, ``low``, ``high`` (one standard deviation around), ``measured`` (as
            the model saw it) and ``is_extrapolated`` (stopped early: what it would have come to), by number.
        n_search: Search trials there were when the model was fitted; None without a model.
        rank_correlation: Spearman's, of predicted with measured; None with fewer than three trials.
        inside: Share of the trials that were measured between ``low`` and ``high``; 0.68 would be honest. None without.
    """

    frame: pd.DataFrame
    n_search: int | None
    rank_correlation: float | None
    inside: float | None


def left_out_facts(attributes: Mapping[str, Any], frame: pd.DataFrame, name: str) -> LeftOutFacts:
    """Read what is kept with the study.

    Args:
        attributes: The study's.
        frame: `trials_frame`.
        name: The objective.
    """
    stored = _mapping(attributes.get("leave_one_out"))
    table = _mapping(_mapping(stored.get("objectives")).get(name))
    kept = [stored.get("numbers"), *(table.get(key) for key in ("mean", "low", "high", "observed"))]
    columns: list[list[Any]] = [column for column in kept if isinstance(column, list)]
    if len(columns) < len(kept) or len({len(column) for column in columns}) > 1:
        columns = [[] for _ in kept]
    found = pd.DataFrame(dict(zip(("number", *_NUMBERS), columns, strict=True)))
    for column in ("number", *_NUMBERS):
        found[column] = pd.to_numeric(found[column], errors="coerce").astype("float64")
    found = found.dropna().astype({"number": "int64"}).sort_values("number", ignore_index=True)
    pruned = frame.loc[frame["state"] == TrialState.PRUNED.value, "number"]
    found["is_extrapolated"] = found["number"].isin(pruned.astype("int64"))
    n_search = stored.get("n_search")
    inside = (found["measured"] >= found["low"]) & (found["measured"] <= found["high"])
    return LeftOutFacts(
        frame=found,
        n_search=n_search if isinstance(n_search, int) else None,
        rank_correlation=rank_correlation(found["predicted"].to_numpy(), found["measured"].to_numpy()),
        inside=None if found.empty else float(inside.mean()),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
