"""From which point improvements are counted: read off the data, never fixed in advance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autopeft.objectives import Direction, Objective, non_dominated_mask

Array = npt.NDArray[np.float64]

#: Decades beyond the largest cost in sight, so that quality at the full budget is worth something.
_COST_MARGIN = 0.05
#: Decades below the budget in which a smaller configuration counts as better.
_DECADES = 3.0


def cheapest_that_counts(log_budget: float) -> float:
    """The all-maximise cost beyond which cheaper is no better: `_DECADES` below the budget.

    On a logarithmic axis every decade weighs the same, so that without a floor the search would spend as much on a few
    dozen parameters, which hardly differ from training the head alone, as on what uses the budget.

    Args:
        log_budget: log10(1 + budget); inf if there is none.
    """
    return math.inf if log_budget == math.inf else _DECADES - log_budget


def exact_reference(exact: Sequence[Objective], values: Array, log_budget: float) -> Array:
    """The exact part of the reference point: beyond what is in sight, and beyond the budget of a minimised cost.

    Args:
        exact: Exactly known objectives (k of them).
        values: Their all-maximise values, logarithms (n x k).
        log_budget: log10(1 + budget) in parameters; inf if there is none.

    Returns:
        All-maximise reference (k,).
    """
    worst = [
        min(column.min(), -log_budget)
        if objective.name == "trainable_parameters"
        and objective.direction is Direction.MINIMIZE
        and log_budget < math.inf
        else column.min()
        for objective, column in zip(exact, values.T, strict=True)
    ]
    return np.array(worst, dtype=np.float64) - _COST_MARGIN


def worst_reached(values: Array) -> Array:
    """The worst value of each objective in all data: usually what a configuration gets that learns nothing.

    A reference point at the worst value of the front instead makes cheap configurations worthless unless they are as
    good as the front already is: on trained configurations that found fronts of 0.887 instead of 0.895 of the volume
    after 15 trials, though of 0.984 instead of 0.981 after 40. Values below the median are squashed (see
    `OutcomeTransform`), so that a collapsed trial does not outweigh the differences between good ones.

    Args:
        values: All-maximise values (n x m), n >= 1.

    Returns:
        All-maximise reference (m,).
    """
    return np.asarray(values.min(axis=0))


def front_members(values: Array) -> list[int]:
    """Indices of the non-dominated rows (n x m), the best in the first objective first."""
    members = np.flatnonzero(non_dominated_mask(values))
    return [int(i) for i in sorted(members, key=lambda i: -values[i, 0])]
