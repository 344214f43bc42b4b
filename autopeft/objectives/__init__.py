"""What is better: objectives, dominance, hypervolume. NumPy only."""

from autopeft.objectives._constraint import EXPORT_CLASS, Constraint, bounds_of, keeps_bounds, merge_constraints
from autopeft.objectives._dominance import hypervolume, non_dominated_mask, reference_point
from autopeft.objectives._objective import (
    COSTS,
    QUALITY,
    Direction,
    Objective,
    from_maximization,
    resolve_objectives,
    to_maximization,
)

__all__ = [
    "COSTS",
    "QUALITY",
    "EXPORT_CLASS",
    "Constraint",
    "Direction",
    "Objective",
    "bounds_of",
    "from_maximization",
    "hypervolume",
    "keeps_bounds",
    "merge_constraints",
    "non_dominated_mask",
    "reference_point",
    "resolve_objectives",
    "to_maximization",
]
