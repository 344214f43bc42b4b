"""What is better: objectives, dominance, hypervolume. NumPy only."""

from autopeft.objectives._dominance import hypervolume, non_dominated_mask, reference_point
from autopeft.objectives._objective import (
    COSTS,
    Direction,
    Objective,
    from_maximization,
    resolve_objectives,
    to_maximization,
)

__all__ = [
    "COSTS",
    "Direction",
    "Objective",
    "from_maximization",
    "hypervolume",
    "non_dominated_mask",
    "reference_point",
    "resolve_objectives",
    "to_maximization",
]
