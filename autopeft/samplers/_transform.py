"""From measured values to what a Gaussian process can model: outliers below must not blur the differences above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Robust standard deviations below the median at which the logarithm takes over.
_KNEE = 1.5
#: Ratio of the standard deviation of a normal distribution to its median absolute deviation.
_NORMAL = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeTransform:
    r"""A strictly increasing map: linear above, logarithmic far below, about standardised.

    With u = (y - median) / scale, values below u = -1.5 become -1.5 - log(1 + (-1.5 - u)): a trial that collapsed
    to chance level is still bad, and collapsed ones are still ordered, but they no longer set the scale on which good
    ones differ. Linear above, so that an improvement counts in proportion to its size; a metric with an upper bound,
    where good values crowd while bad ones spread, is the ordinary case of this.

    The scale is 1.4826 times the median absolute deviation, at least half the way from the median to the best value: if
    most trials collapsed to one value, the others still set it.

    Args:
        center: Median of the observations.
        scale: Robust scale, > 0.
        mean: Of the mapped observations.
        deviation: Standard deviation of the mapped observations, > 0.
    """

    center: float
    scale: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, y: Array) -> OutcomeTransform:
        """Fit the map.

        Args:
            y: Observations (n,), n >= 1, finite, larger is better.
        """
        center = float(np.median(y))
        scale = max(_NORMAL * float(np.median(np.abs(y - center))), 0.5 * (float(y.max()) - center))
        if scale <= 0:  # at least half are the best value
            scale = float(np.ptp(y)) or 1.0
        squashed = _squash((y - center) / scale)
        deviation = float(squashed.std(ddof=1)) if len(y) > 1 else 0.0
        return cls(center=center, scale=scale, mean=float(squashed.mean()), deviation=deviation or 1.0)

    def __call__(self, y: Array) -> Array:
        """Map observations (n,)."""
        mapped = (_squash((np.asarray(y, dtype=np.float64) - self.center) / self.scale) - self.mean) / self.deviation
        return np.asarray(mapped)

    def inverse(self, z: Array) -> Array:
        """Map back (n,)."""
        u = np.asarray(z, dtype=np.float64) * self.deviation + self.mean
        low = np.minimum(u, -_KNEE)
        return np.asarray(np.where(u < -_KNEE, -_KNEE - np.expm1(-_KNEE - low), u) * self.scale + self.center)

    def slope(self, y: Array) -> Array:
        """Derivative at observations (n,): what a small error there is worth."""
        u = (np.asarray(y, dtype=np.float64) - self.center) / self.scale
        return np.asarray(1 / (1 + np.maximum(-_KNEE - u, 0.0)) / (self.scale * self.deviation))


def _squash(u: Array) -> Array:
    return np.where(u < -_KNEE, -_KNEE - np.log1p(np.maximum(-_KNEE - u, 0.0)), u)
