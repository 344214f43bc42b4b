"""What trials show at a rung and at their end, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from autopeft.objectives import Constraint, Objective, keeps_bounds, non_dominated_mask, to_maximization
from autopeft.pruners._ranking import rank
from autopeft.study import Fidelity, Trial, TrialKind, TrialState

Array = npt.NDArray[np.float64]


#: (trial, name of a cost that is known before training) -> its natural value; None if nobody can tell.
KnownCost = Callable[[Trial, str], float | None]


def measured_cost(trial: Trial, name: str) -> float | None:
    """A known cost as far as the trial itself tells: the number of parameters always, others once it is measured."""
    return trial.value(name)


@dataclass(frozen=True, kw_only=True, eq=False)
class RungTable:
    """The search trials of one fidelity that have every objective at a rung, by number.

    Args:
        step: Of the rung.
        objectives: Of the study.
        numbers: Of the trials (n,).
        here: All-maximise values at the rung (n x m), those of costs that are known before training included.
        end: The same at the end of the run (n x m); NaN in rows of trials that have not come to it.
        is_allowed: Whether a trial that has come to its end keeps the constraints; False for all others (n,).
    """

    step: int
    objectives: tuple[Objective, ...]
    numbers: tuple[int, ...]
    here: Array
    end: Array
    is_allowed: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        trials: Sequence[Trial],
        *,
        step: int,
        objectives: Sequence[Objective],
        fidelity: Fidelity,
        constraints: Sequence[Constraint] = (),
        known: KnownCost = measured_cost,
    ) -> RungTable:
        """Read the trials; failed ones teach nothing."""
        numbers, here, end, allowed = [], [], [], []
        for trial in sorted(trials, key=lambda item: item.number):
            if (
                trial.kind is not TrialKind.SEARCH
                or trial.state is TrialState.FAILED
                or trial.draft.fidelity != fidelity
            ):
                continue
            values = natural_values(trial, objectives, step, known)
            if values is None:
                continue
            numbers.append(trial.number)
            here.append(values)
            allowed.append(trial.state is TrialState.COMPLETE and keeps_bounds(constraints, trial.value))
            final = [trial.value(item.name) for item in objectives] if trial.state is TrialState.COMPLETE else [None]
            is_known = None not in final
            end.append([np.nan if value is None else value for value in final] if is_known else [np.nan] * len(values))
        shape = (len(numbers), len(objectives))
        return cls(
            step=step,
            objectives=tuple(objectives),
            numbers=tuple(numbers),
            here=to_maximization(np.array(here, dtype=np.float64).reshape(shape), objectives),
            end=to_maximization(np.array(end, dtype=np.float64).reshape(shape), objectives),
            is_allowed=np.array(allowed, dtype=np.bool_),
        )

    @cached_property
    def is_exact(self) -> npt.NDArray[np.bool_]:
        """Which columns are known before training (m,)."""
        return np.array([item.is_known for item in self.objectives], dtype=np.bool_)

    @cached_property
    def is_complete(self) -> npt.NDArray[np.bool_]:
        """Which rows have come to their end (n,)."""
        return np.asarray(~np.isnan(self.end).any(axis=1), dtype=np.bool_)

    def row(self, number: int) -> int:
        """Row of a trial."""
        return self.numbers.index(number)

    def is_on_front(self, row: int) -> bool:
        """Whether no other row is better at the rung: at least as good everywhere, and better somewhere."""
        return bool(self._front[row])

    @cached_property
    def _front(self) -> npt.NDArray[np.bool_]:
        return non_dominated_mask(self.here)

    @cached_property
    def order(self) -> list[int]:
        """Rows from best to worst at the rung (`rank`): values scaled to [0, 1], of known costs their logarithm."""
        values = self.here.copy()
        costs = values[:, self.is_exact]
        values[:, self.is_exact] = np.sign(costs) * np.log1p(np.abs(costs))
        span = np.ptp(values, axis=0)
        return rank((values - values.min(axis=0)) / np.where(span > 0, span, 1.0))

    def no_dearer(self, row: int, factor: float = 1.0) -> npt.NDArray[np.bool_]:
        """Which other rows cost at most so many times as much in every cost that is known before training (n,).

        Args:
            row: Whom to compare with.
            factor: >= 1.
        """
        own = self.here[row, self.is_exact]
        # Costs are minimised or, by a user's wish, maximised; either way a worse value may be worse by this factor.
        limit = np.where(own < 0, own * factor, own / factor)
        found = (self.here[:, self.is_exact] >= limit).all(axis=1)
        found[row] = False
        return np.asarray(found, dtype=np.bool_)


def natural_values(
    trial: Trial, objectives: Sequence[Objective], step: int, known: KnownCost = measured_cost
) -> list[float] | None:
    """Natural values of a trial at a step; None if it has no such point, or an objective is not measured there."""
    point = trial.point(step)
    if point is None:
        return None
    values = []
    for item in objectives:
        found = point.metrics.get(item.name)
        if item.is_known:
            found = known(trial, item.name)
        elif item.name == "wall_time_s":
            found = point.wall_time_s
        if found is None:
            return None
        values.append(found)
    return values
