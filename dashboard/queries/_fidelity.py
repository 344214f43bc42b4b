"""Whether measurements early in training tell its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from autopeft.objectives import Objective
from autopeft.store import StudyReader
from autopeft.study import TrialKind

from ._trials import measured

#: Columns of `rung_frame`.
_RUNG_COLUMNS = ("step", "share", "objective", "n", "tau", "low", "high", "use")


def fidelity_frame(reader: StudyReader, study_name: str, frame: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """How well the order of trials early in training agrees with the order at its end.

    Args:
        reader: The database.
        study_name: Study.
        frame: `trials_frame` with the objective's column.
        objective: What is compared.

    Returns:
        Columns ``step``, ``share`` (of the longest run's steps), ``correlation`` (Kendall's tau-b, of the values at
        that step with those at the end) and ``n_trials``, for every step that at least five completed search trials
        have reported; the end itself is left out.
    """
    from scipy import stats

    columns = ["step", "share", "correlation", "n_trials"]
    rows = measured(frame, [objective.name], TrialKind.SEARCH).tail(400)
    ends = dict(zip(rows["number"].astype(int), rows[objective.name].astype(float), strict=True))
    points = pd.DataFrame(
        reader.curves(study_name, ends, objective.name), columns=["number", "step", "epoch", "value"]
    ).dropna()
    if points.empty:
        return pd.DataFrame(columns=columns)
    last = points.groupby("number")["step"].max()
    points = points[points["step"] < points["number"].map(last)]
    found = []
    for step in sorted(set(points["step"])):
        group = points[points["step"] == step]
        final = group["number"].map(ends).to_numpy(dtype=np.float64)
        value = group["value"].to_numpy(dtype=np.float64)
        if len(group) >= 5 and np.ptp(value) > 0 and np.ptp(final) > 0:
            tau = float(stats.kendalltau(value, final).statistic)
            found.append((int(step), float(step / last.max()), tau, len(group)))
    return pd.DataFrame(found, columns=columns)


def rung_steps(attributes: Mapping[str, Any]) -> list[int]:
    """Steps at which the study's pruner decides, as the search has noted them; empty without a pruner."""
    report = attributes.get("pruning")
    steps = report.get("rungs") if isinstance(report, Mapping) else None
    return [item for item in steps if isinstance(item, int)] if isinstance(steps, list) else []


def rung_frame(attributes: Mapping[str, Any]) -> pd.DataFrame:
    """How well each rung ranks the trials as they end, as the search has reported it (`rung_correlations`).

    Returns:
        Columns ``step``, ``share`` (of the run, in [0, 1]), ``objective``, ``n`` (trials), ``tau`` with ``low`` and
        ``high`` (Kendall's tau-b and its 95 % interval; missing where there were too few) and ``use`` (whether the
        pruner relies on it); empty without a pruner.
    """
    report = attributes.get("pruning")
    found = report.get("correlations") if isinstance(report, Mapping) else None
    rows = [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
    frame = pd.DataFrame([{name: item.get(name) for name in _RUNG_COLUMNS} for item in rows], columns=_RUNG_COLUMNS)
    for name in ("step", "share", "n", "tau", "low", "high"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    return frame.dropna(subset=["step", "share"])
