"""Costs that a configuration has before it is trained: closed forms, never modelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from autopeft.configuration import KNOWN_COSTS, BoundSpace, Configuration
from autopeft.objectives import Direction, Objective

Array = npt.NDArray[np.float64]


class Configured(Protocol):
    """Whatever has a configuration and its exact cost."""

    @property
    def configuration(self) -> Configuration:
        """What is trained."""

    @property
    def trainable_parameters(self) -> int:
        """Exact count of it."""


def exact_objectives(objectives: Sequence[Objective]) -> list[Objective]:
    """Those whose value is a closed form of the configuration."""
    return [item for item in objectives if item.is_known and item.name in KNOWN_COSTS]


def measured_objectives(objectives: Sequence[Objective]) -> list[Objective]:
    """Those that only a trial can tell."""
    exact = exact_objectives(objectives)
    return [item for item in objectives if item not in exact]


class KnownCosts:
    """The exact objectives of a study, on a logarithmic scale.

    Args:
        space: What is searched.
        objectives: Of the study; measured ones are ignored.
    """

    def __init__(self, space: BoundSpace, objectives: Sequence[Objective]) -> None:
        self._space = space
        self.objectives = exact_objectives(objectives)

    def values(self, items: Sequence[Configured]) -> Array:
        """All-maximise values (n x k) of the k exact objectives: plus or minus log10(1 + natural value).

        Costs known in advance span orders of magnitude; a decade saved counts the same everywhere.
        """
        rows = [self._row(item) for item in items]
        return np.array(rows, dtype=np.float64).reshape(len(items), len(self.objectives))

    def _row(self, item: Configured) -> tuple[float, ...]:
        return tuple(
            logarithm(known_cost(objective.name, item, self._space), objective) for objective in self.objectives
        )


def known_cost(name: str, item: Configured, space: BoundSpace) -> float:
    """Natural value of a known cost; what is already counted is not counted again."""
    if name == "trainable_parameters":
        return float(item.trainable_parameters)
    return KNOWN_COSTS[name](item.configuration, space.shapes, space.module_types)


def logarithm(value: float, objective: Objective) -> float:
    """All-maximise log10(1 + value) of a cost >= 0."""
    log = math.log1p(value) / math.log(10)
    return log if objective.direction is Direction.MAXIMIZE else -log
