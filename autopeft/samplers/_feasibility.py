"""The probability that a configuration trains to its end and keeps the learned constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import stats

from autopeft.objectives import Constraint
from autopeft.samplers._history import Observation
from autopeft.samplers._surrogate import Surrogate

Array = npt.NDArray[np.float64]

_SUCCESS = Constraint(name="success", lower=0.5)


@dataclass(frozen=True, kw_only=True)
class Feasibility:
    """Constraints on quantities that only a trial can tell, each with a model of the quantity.

    Success is one of them: 1 for trials that ended, 0 for those that diverged or ran out of memory, regressed as it is
    and bounded from below by one half.

    Args:
        constraints: On measured quantities.
        surrogates: Of these quantities, natural values; None where nothing can be learned yet.
        success: Of success; None where nothing has failed.
    """

    constraints: Sequence[Constraint] = ()
    surrogates: Sequence[Surrogate | None] = field(default=())
    success: Surrogate | None = None

    def log_probability(self, x: Array) -> Array:
        """Log probability (n,) that every constraint holds at encoded points (n x d), taken as independent."""
        total = np.zeros(len(x))
        everything = [*zip(self.constraints, self.surrogates, strict=True), (_SUCCESS, self.success)]
        for constraint, surrogate in everything:
            if surrogate is None:
                continue
            mean, deviation = (item.numpy() for item in surrogate.predict(x))
            # One side at a time: as far as a bound is concerned, the other one is far away.
            if constraint.upper is not None:
                bound = float(surrogate.transform(np.array([constraint.upper]))[0])
                total += stats.norm.logcdf((bound - mean) / deviation)
            if constraint.lower is not None:
                bound = float(surrogate.transform(np.array([constraint.lower]))[0])
                total += stats.norm.logcdf((mean - bound) / deviation)
        return total

    def holds(self, item: Observation) -> bool:
        """Whether a measured trial keeps the constraints; what was not measured is not held against it."""
        values = item.constrained or (None,) * len(self.constraints)
        return all(
            value is None or constraint.allows(value)
            for constraint, value in zip(self.constraints, values, strict=True)
        )

    def believe(self, x: Array) -> None:
        """Take points as observed at their predicted means."""
        for surrogate in (*self.surrogates, self.success):
            if surrogate is not None:
                surrogate.believe(x)
