"""Means with intervals, and paired comparisons."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval by Student's t.

    Args:
        mean: The mean.
        half: Half the interval's width; NaN with fewer than two values.
        n: Values behind it.
    """

    mean: float
    half: float
    n: int

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Estimate:
        """Summarise values (n,), n >= 1."""
        found = np.asarray(values, dtype=np.float64)
        n = len(found)
        half = float(stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        return cls(mean=float(found.mean()), half=half, n=n)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired differences between two samplers.

    Args:
        difference: Ours minus the rival's.
        p_t: Two-sided p-value of the paired t-test; 1 if nothing differs.
        p_wilcoxon: Two-sided p-value of Wilcoxon's signed-rank test; 1 if nothing differs.
        wins: Repetitions in which ours is better.
        losses: Repetitions in which it is worse.
    """

    difference: Estimate
    p_t: float
    p_wilcoxon: float
    wins: int
    losses: int

    def is_above(self, level: float = 0.01) -> bool:
        """Whether ours is better on average and both tests agree that this is no chance."""
        return self.difference.mean > 0 and max(self.p_t, self.p_wilcoxon) < level

    def is_below(self, level: float = 0.01) -> bool:
        """Whether ours is worse on average and both tests agree that this is no chance."""
        return self.difference.mean < 0 and max(self.p_t, self.p_wilcoxon) < level


def compare(ours: npt.ArrayLike, rival: npt.ArrayLike) -> Comparison:
    """Compare two samplers over the same repetitions.

    Args:
        ours: One value per repetition (n,), larger is better.
        rival: The other sampler's values in the same order (n,).
    """
    d = np.asarray(ours, dtype=np.float64) - np.asarray(rival, dtype=np.float64)
    differs = len(d) > 1 and bool((d != 0).any())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ties, and differences that are all equal
        p_t = float(stats.ttest_1samp(d, 0.0).pvalue) if differs else 1.0
        p_wilcoxon = float(stats.wilcoxon(d).pvalue) if differs else 1.0
    return Comparison(
        difference=Estimate.of(d), p_t=p_t, p_wilcoxon=p_wilcoxon, wins=int((d > 0).sum()), losses=int((d < 0).sum())
    )


def first_reaching(curve: Array, target: float) -> int | None:
    """How many trials it takes to reach a value; None if a curve (k,) that does not fall never does."""
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if len(reached) else None


def at_time(curve: Array, finished_s: npt.ArrayLike, times: npt.ArrayLike) -> Array:
    """Values of a curve over trials (k,) at points of time (t,), 0 before the first trial has ended.

    Args:
        curve: Value after 1, 2, ... trials.
        finished_s: When these ended (k,), rising.
        times: When to look.
    """
    ended = np.searchsorted(np.asarray(finished_s, dtype=np.float64), np.asarray(times, dtype=np.float64), side="right")
    return np.concatenate([[0.0], curve])[ended]
