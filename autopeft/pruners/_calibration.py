"""How much a rung says about the end: rank correlation, and what a value at the rung can still become."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Fewest completed trials for an interval of a rank correlation: its standard error has n - 4 below the root.
MIN_RANKED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCorrelation:
    """Kendall's tau-b between two orders of the same trials, with its 95 % interval.

    Args:
        n: Trials, >= 0.
        tau: In [-1, 1]; None if it is undefined: fewer than two trials, or all equal in one of the two.
        low: Lower end; None with fewer than five trials, or without tau.
        high: Upper end, likewise.
    """

    n: int
    tau: float | None
    low: float | None = None
    high: float | None = None


def rank_correlation(here: Sequence[float] | Array, end: Sequence[float] | Array) -> RankCorrelation:
    r"""Kendall's tau-b, with the interval of Fieller, Hartley and Pearson (Biometrika 44, 1957).

    .. math:: \tanh\left(\operatorname{artanh} \tau \pm 1.96 \sqrt{0.437 / (n - 4)}\right)

    Trials that were stopped have no end. Those that were not are better than average at the rung, or controls: where
    trials are stopped, the correlation over them is lower than over all.

    Args:
        here: Values at a rung (n,).
        end: Values of the same trials at their end (n,).
    """
    x, y = np.asarray(here, dtype=np.float64), np.asarray(end, dtype=np.float64)
    n = len(x)
    if n < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return RankCorrelation(n=n, tau=None)
    tau = _tau_b(x, y)
    if n < MIN_RANKED:
        return RankCorrelation(n=n, tau=tau)
    # A perfect order of n trials is no proof of one of all trials: the transform of 1 would be infinite.
    limit = 1 - 1 / (n * (n - 1) / 2 + 1)
    centre = math.atanh(min(max(tau, -limit), limit))
    half = 1.96 * math.sqrt(0.437 / (n - 4))
    return RankCorrelation(n=n, tau=tau, low=math.tanh(centre - half), high=math.tanh(centre + half))


def _tau_b(x: Array, y: Array) -> float:
    rows, columns = np.triu_indices(len(x), 1)
    dx, dy = np.sign(x[rows] - x[columns]), np.sign(y[rows] - y[columns])
    return float((dx * dy).sum() / math.sqrt(float((dx != 0).sum()) * float((dy != 0).sum())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    r"""The best that a trial can still become: a one-sided prediction interval of its end, given its value at a rung.

    With the least-squares line through the n completed trials, slope b and residual standard deviation s, and the
    quantile t of Student's distribution with n - 2 degrees of freedom:

    .. math::
        u(r) = \bar f + \max\left(0,\ b \pm \frac{t s}{\sqrt{\sum (r_i - \bar r)^2}}\right)(r - \bar r)
               + t s \sqrt{1 + 1/n}

    with plus above the mean of the completed trials and minus below it. Unlike the ordinary prediction interval it
    never falls where r rises: a worse trial is not given more hope than a better one. It lies above that interval
    except where the slope is not known to be positive, below the mean.

    Args:
        mean_here: Mean of the completed trials at the rung.
        mean_end: At their end.
        slope_above: Of the ceiling above `mean_here`, >= 0.
        slope_below: Below it, >= 0.
        width: What it lies above the line at `mean_here`, >= 0.
    """

    mean_here: float
    mean_end: float
    slope_above: float
    slope_below: float
    width: float

    @classmethod
    def fit(cls, here: Array, end: Array, *, risk: float) -> Ceiling:
        """Fit to completed trials.

        Args:
            here: All-maximise values at the rung (n,), n >= 3.
            end: At the end (n,).
            risk: Share of trials that end above their ceiling, in (0, 0.5).
        """
        # A study is read more often than a trial is judged, and this import takes its time.
        from scipy.special import stdtrit

        n, centred = len(here), here - here.mean()
        spread = float(centred @ centred)
        slope = float(centred @ end) / spread if spread > 0 else 0.0
        residuals = end - end.mean() - slope * centred
        s = math.sqrt(float(residuals @ residuals) / (n - 2))
        t = float(stdtrit(n - 2, 1 - risk))
        tilt = t * s / math.sqrt(spread) if spread > 0 else 0.0
        return cls(
            mean_here=float(here.mean()),
            mean_end=float(end.mean()),
            slope_above=max(0.0, slope + tilt),
            slope_below=max(0.0, slope - tilt),
            width=t * s * math.sqrt(1 + 1 / n),
        )

    def at(self, here: float) -> float:
        """The ceiling of a trial with this value at the rung."""
        distance = here - self.mean_here
        return self.mean_end + (self.slope_above if distance > 0 else self.slope_below) * distance + self.width
