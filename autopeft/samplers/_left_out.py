"""What a surrogate predicts each observation to be without it, in the units of the objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autopeft.samplers._transform import OutcomeTransform

Array = npt.NDArray[np.float64]

#: Significant digits of what is handed out.
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Leave-one-out predictions as a surrogate was fitted, in transformed units.

    Repeated observations of a configuration are left out together, and what is predicted is their mean.

    Args:
        x: Different encoded configurations (n x d).
        mean: Predicted means (n,).
        deviation: Standard deviations of what is observed, its noise included (n,), > 0.
    """

    x: Array
    mean: Array
    deviation: Array

    def at(self, x: Array) -> tuple[Array, Array]:
        """Means (m,) and standard deviations (m,) at encoded configurations (m x d), each of them a row of `x`."""
        rows = {_key(row): i for i, row in enumerate(self.x)}
        found = np.array([rows[_key(row)] for row in x], dtype=np.intp)
        return self.mean[found], self.deviation[found]

    def table(self, x: Array, y: Array, *, transform: OutcomeTransform, sign: float) -> dict[str, list[float | None]]:
        """Predictions beside observations, JSON-ready, one entry per observation in each column.

        Args:
            x: The encoded configurations that the surrogate was fitted to (m x d); equal rows are repeated.
            y: Their all-maximise values (m,).
            transform: Of the surrogate.
            sign: 1 for an objective that is maximised, -1 otherwise.

        Returns:
            Columns ``observed``, ``mean``, and ``low`` and ``high``, one standard deviation around the mean before it
            is mapped back: natural values. None where a number cannot be told.
        """
        mean, deviation = self.at(x)
        with np.errstate(over="ignore"):
            ends = [sign * transform.inverse(mean + side * deviation) for side in (-1, 0, 1)]
        columns = {
            "observed": sign * np.asarray(y),
            "mean": ends[1],
            "low": np.minimum(ends[0], ends[2]),
            "high": np.maximum(ends[0], ends[2]),
        }
        return {name: _plain(values.tolist()) for name, values in columns.items()}


def _key(row: Array) -> bytes:
    """Equal rows have equal keys: zero has no sign."""
    return np.asarray(row + 0.0).tobytes()


def _plain(values: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values]
