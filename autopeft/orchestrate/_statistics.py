"""Intervals for scores and differences that were measured with a few seeds on one sample of examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Score = Callable[[Array, Array], float | None]

_RESAMPLES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval.

    Args:
        mean: The estimate, in the metric's unit.
        low: Lower end.
        high: Upper end.
        n_seeds: Seeds behind it; with one seed the interval covers the choice of examples only.
        n_examples: Examples behind it.
    """

    mean: float
    low: float
    high: float
    n_seeds: int
    n_examples: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def seed_interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Mean of a quantity over runs with different seeds, and its 95 % interval by Student's t.

    The examples that the quantity was measured on are the same in all runs: their choice is not in the interval.

    Args:
        values: One per seed.

    Returns:
        Mean, lower and upper end; None for fewer than two seeds.
    """
    if len(values) < 2:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean, mean - half, mean + half


def score_interval(predictions: Array, targets: Array, score: Score, *, seed: int = 0) -> Interval | None:
    """Mean score over seeds with a 95 % interval over seeds and examples.

    SE^2 = SE_examples^2 + s_seeds^2 / S, where SE_examples is the bootstrap standard error over examples of the
    seed-averaged score, with Welch-Satterthwaite degrees of freedom (S - 1 for the seed part).

    Args:
        predictions: Predictions (S seeds x n examples).
        targets: Targets (n,).
        score: Natural metric value of predictions (n,) against targets (n,); None where it is undefined.
        seed: Seed of the bootstrap.

    Returns:
        The interval; None if the metric is undefined for a seed.
    """
    return _interval([(predictions, 1.0)], targets, score, seed=seed)


def difference_interval(
    candidate: Array, baseline: Array, targets: Array, score: Score, *, seed: int = 0
) -> Interval | None:
    """Mean score of a candidate minus that of a baseline, paired by example, with a 95 % interval.

    Both sides' seed variances add: SE^2 = SE_examples^2 + s_c^2 / S_c + s_b^2 / S_b.

    Args:
        candidate: Predictions (S_c seeds x n examples).
        baseline: Predictions (S_b seeds x n examples).
        targets: Targets (n,).
        score: As in `score_interval`.
        seed: Seed of the bootstrap.

    Returns:
        The interval, positive where the candidate's metric is larger; None if the metric is undefined for a seed.
    """
    return _interval([(candidate, 1.0), (baseline, -1.0)], targets, score, seed=seed)


def _interval(sides: list[tuple[Array, float]], targets: Array, score: Score, *, seed: int) -> Interval | None:
    scores = []
    for predictions, _ in sides:
        values = [score(row, targets) for row in predictions]
        if any(value is None for value in values):
            return None
        scores.append(np.array(values, dtype=np.float64))
    mean = sum(sign * float(values.mean()) for values, (_, sign) in zip(scores, sides, strict=True))
    n = len(targets)
    # (variance, degrees of freedom) of each independent source
    parts = [(_example_variance(sides, targets, score, seed=seed), max(n - 1, 1))]
    parts += [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in scores if len(values) > 1]
    variance = sum(part for part, _ in parts)
    if variance > 0:
        degrees = variance**2 / sum(part**2 / dof for part, dof in parts)
        half = float(stats.t.ppf(0.975, degrees)) * math.sqrt(variance)
    else:
        half = 0.0
    n_seeds = min(len(values) for values in scores)
    return Interval(mean=mean, low=mean - half, high=mean + half, n_seeds=n_seeds, n_examples=n)


def _example_variance(sides: list[tuple[Array, float]], targets: Array, score: Score, *, seed: int) -> float:
    """Bootstrap variance over examples of the signed sum of seed-averaged scores; undefined resamples are left out."""
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(_RESAMPLES):
        rows = rng.integers(0, len(targets), size=len(targets))
        total: float | None = 0.0
        for predictions, sign in sides:
            values = [score(row[rows], targets[rows]) for row in predictions]
            if total is None or any(value is None for value in values):
                total = None
                break
            total += sign * float(np.mean([value for value in values if value is not None]))
        if total is not None:
            draws.append(total)
    return float(np.var(draws, ddof=1)) if len(draws) > 1 else 0.0
