"""The Pareto front of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autopeft.objectives import (
    Objective,
    from_maximization,
    hypervolume,
    non_dominated_mask,
    reference_point,
    to_maximization,
)
from autopeft.study._trial import Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The non-dominated trials among those offered.

    Args:
        trials: Members, by number; of trials with equal values only the first is a member.
        objectives: What is compared.
        reference_point: Natural values of the point the hypervolume is measured from; None if there are no trials.
        hypervolume: In the product of the objectives' units, >= 0; None if there are no trials.
    """

    trials: tuple[Trial, ...]
    objectives: tuple[Objective, ...]
    reference_point: tuple[float, ...] | None
    hypervolume: float | None

    @classmethod
    def of(cls, trials: Iterable[Trial], objectives: Sequence[Objective]) -> Front:
        """Compute the front of the completed trials that have every objective measured.

        The reference point comes from all of them, dominated ones included.
        """
        rows = []
        for trial in trials:
            values = [value for item in objectives if (value := trial.value(item.name)) is not None]
            if trial.state is TrialState.COMPLETE and len(values) == len(objectives):
                rows.append((trial, values))
        if not rows:
            return cls(trials=(), objectives=tuple(objectives), reference_point=None, hypervolume=None)
        y = to_maximization([values for _, values in rows], objectives)  # n x m
        mask = non_dominated_mask(y)
        seen: set[tuple[float, ...]] = set()
        members = []
        for (trial, _), row, is_member in zip(rows, y, mask, strict=True):
            if is_member and tuple(row) not in seen:
                seen.add(tuple(row))
                members.append(trial)
        reference = reference_point(y)
        natural = from_maximization(reference, objectives)
        return cls(
            trials=tuple(members),
            objectives=tuple(objectives),
            reference_point=tuple(float(value) for value in natural),
            hypervolume=hypervolume(y, reference),
        )

    def knee(self) -> Trial | None:
        """The member farthest above the chord between the front's ends, for two objectives; None if empty.

        Objectives are scaled to [0, 1] over the front; a known cost spans orders of magnitude, so its logarithm counts.
        """
        if not self.trials:
            return None
        values = np.array([[trial.value(item.name) or 0.0 for item in self.objectives] for trial in self.trials])
        for j, item in enumerate(self.objectives):
            if item.is_known:
                values[:, j] = np.log10(np.maximum(values[:, j], 1.0))
        y = to_maximization(values, self.objectives)
        span = np.ptp(y, axis=0)
        scaled = (y - y.min(axis=0)) / np.where(span > 0, span, 1.0)
        return self.trials[int(scaled.sum(axis=1).argmax())]
