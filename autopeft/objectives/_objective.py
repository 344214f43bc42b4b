"""Objectives: named, directed quantities with a unit. Direction is declared here and converted here, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from autopeft.exceptions import UnknownNameError


class Direction(StrEnum):
    """Which way is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A quantity read off a measurement.

    Args:
        name: Key in `Measurement.metrics` or `Measurement.costs`.
        direction: Which way is better.
        unit: Unit shown to people, for example ``"parameters"``; empty for scores.
        is_known: Whether the value is exact before training (a closed form), so that no surrogate models it.
    """

    name: str
    direction: Direction
    unit: str = ""
    is_known: bool = False

    @property
    def sign(self) -> float:
        """1 if larger is better, -1 if smaller is: natural values times this are to be maximised."""
        return 1.0 if self.direction is Direction.MAXIMIZE else -1.0


#: Costs that any study may minimise or maximise beside its task's own metrics.
COSTS: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(name="trainable_parameters", direction=Direction.MINIMIZE, unit="parameters", is_known=True),
        Objective(name="stored_bytes", direction=Direction.MINIMIZE, unit="bytes", is_known=True),
        Objective(name="inference_flops_per_token", direction=Direction.MINIMIZE, unit="FLOPs", is_known=True),
        Objective(name="wall_time_s", direction=Direction.MINIMIZE, unit="s"),
        Objective(name="peak_memory_bytes", direction=Direction.MINIMIZE, unit="bytes"),
        Objective(name="examples_per_s", direction=Direction.MAXIMIZE, unit="examples/s"),
        Objective(name="tokens_per_s", direction=Direction.MAXIMIZE, unit="tokens/s"),
    )
}


#: Stands for the task's first metric.
QUALITY = "quality"


def resolve_objectives(
    names: Sequence[str], metrics: Mapping[str, Direction], rewards: Mapping[str, Objective] | None = None
) -> tuple[Objective, ...]:
    """Turn names into objectives.

    Args:
        names: Metric names of the task, ``"quality"`` for the first of them, keys of `COSTS` or of `rewards`, without
            repetition.
        metrics: The task's metrics and their directions.
        rewards: Further objectives by the names they are asked for by.

    Raises:
        UnknownNameError: If a name is none of these.
    """
    known = dict(rewards or {})
    resolved = []
    for name in names:
        metric = next(iter(metrics), name) if name == QUALITY else name
        if metric in metrics:
            resolved.append(Objective(name=metric, direction=metrics[metric]))
        elif name in COSTS:
            resolved.append(COSTS[name])
        elif name in known:
            resolved.append(known[name])
        else:
            raise UnknownNameError("objective", name, [QUALITY, *metrics, *COSTS, *known])
    return tuple(dict.fromkeys(resolved))


def to_maximization(values: npt.ArrayLike, objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    """Natural values (n x m) to the all-maximise form (n x m): minimised columns change sign."""
    return np.asarray(values, dtype=np.float64) * _signs(objectives)


def from_maximization(values: npt.ArrayLike, objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    """Inverse of `to_maximization`."""
    return np.asarray(values, dtype=np.float64) * _signs(objectives)


def _signs(objectives: Sequence[Objective]) -> npt.NDArray[np.float64]:
    return np.array([1.0 if objective.direction is Direction.MAXIMIZE else -1.0 for objective in objectives])
