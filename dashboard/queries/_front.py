"""Who is on the front, what is best, and how sure that is."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import pandas as pd

from autopeft.objectives import Constraint, bounds_of, keeps_bounds, non_dominated_mask, to_maximization
from autopeft.study import StudySpec, TrialKind, TrialState

from ._trials import measured


class Role(StrEnum):
    """What a point in the picture of the front is."""

    FRONT = "front"
    DOMINATED = "dominated"
    INFEASIBLE = "infeasible"
    PRUNED = "pruned"
    BASELINE = "baseline"


def add_roles(frame: pd.DataFrame, spec: StudySpec) -> pd.DataFrame:
    """The trials with a `Role` each; missing for confirmations, and for trials without a measurement to show.

    The front is the one that the commands and the report show: search trials that were trained to the end and have
    every objective, none better in all; of trials with equal values the first.

    Args:
        frame: `trials_frame` with a column per objective.
        spec: Names objectives, budget and, if there are any, constraints.
    """
    found = frame.copy()
    roles = pd.Series([None] * len(frame), index=frame.index, dtype=object)
    primary = spec.objectives[0].name
    has_quality = frame[primary].notna() if primary in frame else pd.Series(False, index=frame.index)
    search = (frame["kind"] == TrialKind.SEARCH.value) & has_quality
    roles[search & (frame["state"] == TrialState.COMPLETE.value)] = Role.DOMINATED.value
    roles[search & (frame["state"] == TrialState.PRUNED.value)] = Role.PRUNED.value
    roles[search & (frame["state"] == TrialState.COMPLETE.value) & ~is_feasible(frame, spec)] = Role.INFEASIBLE.value
    baselines = (frame["kind"] == TrialKind.BASELINE.value) & has_quality
    roles[baselines & (frame["state"] == TrialState.COMPLETE.value)] = Role.BASELINE.value
    roles[frame["number"].isin(front_numbers(frame, spec))] = Role.FRONT.value
    found["role"] = roles
    return found


def front_numbers(frame: pd.DataFrame, spec: StudySpec) -> list[int]:
    """Numbers of the front's members, ascending: equal to `autopeft.study.search_front`."""
    rows = measured(frame, [item.name for item in spec.objectives], TrialKind.SEARCH)
    rows = rows[keeps_constraints(rows, spec)]
    if rows.empty:
        return []
    y = to_maximization(rows[[item.name for item in spec.objectives]].to_numpy(dtype=np.float64), spec.objectives)
    members = rows.loc[non_dominated_mask(y)]
    firsts = members.drop_duplicates([item.name for item in spec.objectives])
    return [int(number) for number in firsts["number"]]


def is_feasible(frame: pd.DataFrame, spec: StudySpec) -> pd.Series:
    """Whether each trial is known to keep the parameter budget and the study's constraints."""
    return (frame["trainable_parameters"] <= spec.budget) & keeps_constraints(frame, spec)


def constraints_of(spec: StudySpec) -> tuple[Constraint, ...]:
    """The study's constraints on numbers (`autopeft.objectives.bounds_of`)."""
    return bounds_of(spec.constraints)


def keeps_constraints(frame: pd.DataFrame, spec: StudySpec) -> pd.Series:
    """`autopeft.study.keeps_constraints` of each row; a column that is not there was not measured."""
    bounds = constraints_of(spec)
    if not bounds:
        return pd.Series(True, index=frame.index)
    columns = frame.reindex(columns=[item.name for item in bounds]).astype("float64")
    kept = [
        keeps_bounds(bounds, {name: None if value != value else value for name, value in row.items()}.get)
        for row in columns.to_dict("records")
    ]
    return pd.Series(kept, index=frame.index, dtype=bool)


def knee_number(frame: pd.DataFrame, spec: StudySpec) -> int | None:
    """The front's member farthest above the chord between its ends, as `Front.knee`; None for an empty front."""
    rows = frame[frame["number"].isin(front_numbers(frame, spec))]
    if rows.empty:
        return None
    values = rows[[item.name for item in spec.objectives]].to_numpy(dtype=np.float64)
    for j, item in enumerate(spec.objectives):
        if item.is_known:
            values[:, j] = np.log10(np.maximum(values[:, j], 1.0))
    y = to_maximization(values, spec.objectives)
    span = np.ptp(y, axis=0)
    scaled = (y - y.min(axis=0)) / np.where(span > 0, span, 1.0)
    return int(rows["number"].iloc[int(scaled.sum(axis=1).argmax())])


def best_number(frame: pd.DataFrame, spec: StudySpec, *kinds: TrialKind) -> int | None:
    """The measured trial within the budget with the best first objective; of equals the cheapest, then the first."""
    objective = spec.objectives[0]
    rows = measured(frame, [objective.name], *kinds)
    rows = rows[is_feasible(rows, spec)]
    if rows.empty:
        return None
    order = np.lexsort((rows["number"], rows["trainable_parameters"], -objective.sign * rows[objective.name]))
    return int(rows["number"].iloc[int(order[0])])


def seed_intervals(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Mean and 95 % interval of a value over the seeds that a trial was repeated with.

    The t interval of the confirmations' values on the search split; the trial's own value, which it was chosen by, is
    left out.

    Returns:
        Columns ``number`` (the repeated trial), ``mean``, ``low``, ``high`` and ``n_seeds`` (>= 2).
    """
    from scipy import stats

    columns = ["number", "mean", "low", "high", "n_seeds"]
    if name not in frame:
        return pd.DataFrame(columns=columns)
    repeats = frame[
        (frame["kind"] == TrialKind.CONFIRMATION.value)
        & (frame["state"] == TrialState.COMPLETE.value)
        & frame["parent"].notna()
        & frame[name].notna()
    ]
    rows = []
    for parent in sorted({int(number) for number in repeats["parent"]}):
        group = repeats[repeats["parent"] == parent]
        values = group[name].to_numpy(dtype=np.float64)
        if len(values) >= 2:
            half = float(stats.t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / np.sqrt(len(values))
            rows.append((parent, values.mean(), values.mean() - half, values.mean() + half, len(values)))
    return pd.DataFrame(rows, columns=columns)


__all__ = [
    "Role",
    "add_roles",
    "best_number",
    "constraints_of",
    "front_numbers",
    "is_feasible",
    "keeps_constraints",
    "knee_number",
    "seed_intervals",
]
