"""How the front grew, and how the front of a search at random did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autopeft.objectives import from_maximization, hypervolume, reference_point, to_maximization
from autopeft.study import StudySpec, TrialKind, TrialState

from ._front import keeps_constraints
from ._trials import measured

Array = npt.NDArray[np.float64]

#: Points of a band over time; more cannot be told apart.
_MAX_TIMES = 400


def hypervolume_frame(
    frame: pd.DataFrame, spec: StudySpec, *, reference: Sequence[float] | None = None
) -> pd.DataFrame:
    """How the hypervolume of the search grew: one row per measured trial, in the order in which they finished.

    Args:
        frame: `trials_frame` with a column per objective.
        spec: Names the objectives.
        reference: Natural values of the point to measure from; None for the study's own (`reference_values`).

    Returns:
        Columns ``n_trials`` (search trials that had ended by then, in whatever state), ``hours`` since the first
        search trial started (float), ``number`` and ``hypervolume``; empty if nothing was measured.
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
    allowed = keeps_constraints(rows, spec).to_numpy()
    search = frame[frame["kind"] == TrialKind.SEARCH.value]
    ended = search[search["state"].isin([state.value for state in TrialState if state.is_finished])]
    # Those that were stopped or failed moved nothing, but they were tried.
    ended = ended.sort_values(["finished_at", "number"]).reset_index(drop=True)
    volumes = _growing_volume(y, origin, allowed)
    return pd.DataFrame(
        {
            "n_trials": 1 + np.flatnonzero(ended["number"].isin(rows["number"])),
            # Baselines come first in some searches, and in others not at all.
            "hours": (rows["finished_at"] - search["started_at"].min()).dt.total_seconds().to_numpy() / 3600,
            "number": rows["number"].to_numpy(),
            "hypervolume": volumes,
        },
        columns=columns,
    )


def reference_values(frame: pd.DataFrame, spec: StudySpec) -> tuple[float, ...] | None:
    """Natural values of the point that the hypervolume is measured from, as `Front` chooses it; None without trials."""
    rows = measured(frame, [item.name for item in spec.objectives], TrialKind.SEARCH)
    rows = rows[keeps_constraints(rows, spec)]
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


def rival_band(curves: Sequence[pd.DataFrame], *, over: str = "n_trials") -> pd.DataFrame:
    """Several random searches' hypervolumes as one band.

    Args:
        curves: `hypervolume_frame` of each, all measured from one reference point.
        over: Column that the band runs along: ``"n_trials"`` or ``"hours"``.

    Returns:
        Columns `over`, ``low``, ``middle`` (median) and ``high``, as far as all of them reached. Between two of its
        trials, and before its first one, a search has what it had: at first nothing.
    """
    known = [item for item in curves if not item.empty]
    columns = [over, "low", "middle", "high"]
    if not known:
        return pd.DataFrame(columns=columns)
    end = min(float(item[over].iloc[-1]) for item in known)
    places = np.unique(np.concatenate([item[over].to_numpy(dtype=np.float64) for item in known] + [[end]]))
    places = places[places <= end]
    if len(places) > _MAX_TIMES and over == "hours":
        places = places[np.linspace(0, len(places) - 1, _MAX_TIMES).round().astype(int)]
    table = np.stack([_reached(item, over, places) for item in known])
    return pd.DataFrame(
        {over: places, "low": table.min(axis=0), "middle": np.median(table, axis=0), "high": table.max(axis=0)},
        columns=columns,
    )


def _reached(curve: pd.DataFrame, over: str, places: Array) -> Array:
    last = np.searchsorted(curve[over].to_numpy(dtype=np.float64), places, side="right") - 1
    return np.where(last < 0, 0.0, curve["hypervolume"].to_numpy(dtype=np.float64)[np.maximum(last, 0)])
