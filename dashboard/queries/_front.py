"""Who is on the front, and how the front grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autopeft.objectives import (
    Constraint,
    bounds_of,
    from_maximization,
    hypervolume,
    keeps_bounds,
    non_dominated_mask,
    reference_point,
    to_maximization,
)
from autopeft.study import StudySpec, TrialKind, TrialState

from ._trials import measured

Array = npt.NDArray[np.float64]


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
    rows = rows[_keeps_constraints(rows, spec)]
    if rows.empty:
        return []
    y = to_maximization(rows[[item.name for item in spec.objectives]].to_numpy(dtype=np.float64), spec.objectives)
    members = rows.loc[non_dominated_mask(y)]
    firsts = members.drop_duplicates([item.name for item in spec.objectives])
    return [int(number) for number in firsts["number"]]


def is_feasible(frame: pd.DataFrame, spec: StudySpec) -> pd.Series:
    """Whether each trial is known to keep the parameter budget and the study's constraints."""
    return (frame["trainable_parameters"] <= spec.budget) & _keeps_constraints(frame, spec)


def constraints_of(spec: StudySpec) -> tuple[Constraint, ...]:
    """The study's constraints on numbers (`autopeft.objectives.bounds_of`)."""
    return bounds_of(spec.constraints)


def _keeps_constraints(frame: pd.DataFrame, spec: StudySpec) -> pd.Series:
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


def hypervolume_frame(
    frame: pd.DataFrame, spec: StudySpec, *, reference: Sequence[float] | None = None
) -> pd.DataFrame:
    """How the hypervolume of the search grew, trial by trial in the order in which they finished.

    Args:
        frame: `trials_frame` with a column per objective.
        spec: Names the objectives.
        reference: Natural values of the point to measure from; None for the study's own (`reference_values`).

    Returns:
        Columns ``n_trials`` (finished search trials so far), ``hours`` since the first trial started (float),
        ``number`` and ``hypervolume``; empty if nothing was measured.
    """
    names = [item.name for item in spec.objectives]
    rows = measured(frame, names, TrialKind.SEARCH).sort_values(["finished_at", "number"])
    columns = ["n_trials", "hours", "number", "hypervolume"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    y = to_maximization(rows[names].to_numpy(dtype=np.float64), spec.objectives)
    natural = reference if reference is not None else reference_values(frame, spec)
    if natural is None:
        return pd.DataFrame(columns=columns)
    origin = to_maximization([natural], spec.objectives)[0]
    allowed = _keeps_constraints(rows, spec).to_numpy()
    started = frame["started_at"].min()
    volumes = _growing_volume(y, origin, allowed)
    return pd.DataFrame(
        {
            "n_trials": np.arange(1, len(rows) + 1),
            "hours": (rows["finished_at"] - started).dt.total_seconds().to_numpy() / 3600,
            "number": rows["number"].to_numpy(),
            "hypervolume": volumes,
        },
        columns=columns,
    )


def reference_values(frame: pd.DataFrame, spec: StudySpec) -> tuple[float, ...] | None:
    """Natural values of the point that the hypervolume is measured from, as `Front` chooses it; None without trials."""
    rows = measured(frame, [item.name for item in spec.objectives], TrialKind.SEARCH)
    rows = rows[_keeps_constraints(rows, spec)]
    if rows.empty:
        return None
    y = to_maximization(rows[[item.name for item in spec.objectives]].to_numpy(dtype=np.float64), spec.objectives)
    return tuple(float(value) for value in from_maximization([reference_point(y)], spec.objectives)[0])


def _growing_volume(y: Array, reference: Array, allowed: npt.NDArray[np.bool_]) -> list[float]:
    """Hypervolume of the first 1, 2, ..., n rows; computed anew only where a row is not dominated by those before."""
    front = np.empty((0, y.shape[1]))
    volume, volumes = 0.0, []
    for row, counts in zip(y, allowed, strict=True):
        if counts and not (front >= row).all(axis=1).any():
            front = np.vstack([front[~(row >= front).all(axis=1)], row])
            volume = hypervolume(front, reference)
        volumes.append(volume)
    return volumes


def is_rival(spec: StudySpec, other: StudySpec) -> bool:
    """Whether another study is the random baseline of this one: the same search, drawn at random, perhaps another seed.

    Compared are task, backbone, space, budget, objectives, fidelity and training.
    """
    if other.sampler != "random" or spec.name == other.name:
        return False
    skipped = ("name", "sampler", "seed", "budget_text")
    mine, theirs = spec.to_dict(), other.to_dict()
    return all(_same(mine[key], theirs.get(key)) for key in mine if key not in skipped)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return list(left) == list(right)
    return bool(left == right)


def rival_band(curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Several random searches' hypervolumes as one band over the number of trials.

    Returns:
        Columns ``n_trials``, ``low``, ``middle`` (median) and ``high``, over the numbers that all of them reached.
    """
    known = [item["hypervolume"].to_numpy() for item in curves if not item.empty]
    n = min((len(item) for item in known), default=0)
    table = np.array([item[:n] for item in known]).reshape(len(known), n)
    if n == 0:
        return pd.DataFrame(columns=["n_trials", "low", "middle", "high"])
    return pd.DataFrame(
        {
            "n_trials": np.arange(1, n + 1),
            "low": table.min(axis=0),
            "middle": np.median(table, axis=0),
            "high": table.max(axis=0),
        }
    )


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
    "hypervolume_frame",
    "is_feasible",
    "is_rival",
    "knee_number",
    "reference_values",
    "rival_band",
    "seed_intervals",
]
