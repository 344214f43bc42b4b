"""What Bayesian optimisation maximises, for each combination of measured and exactly known objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autopeft.objectives import Direction, Objective, non_dominated_mask
from autopeft.samplers._acquisition import log_expected_hypervolume_improvement, log_expected_improvement
from autopeft.samplers._botorch import (
    GenericMCMultiOutputObjective,
    ModelListGP,
    SobolQMCNormalSampler,
    qLogNoisyExpectedHypervolumeImprovement,
    without_compiling,
)
from autopeft.samplers._encoding import Configured, Encoder
from autopeft.samplers._history import (
    Evidence,
    Observation,
    exact_objectives,
    exact_values,
    measured_objectives,
    measured_values,
)
from autopeft.samplers._surrogate import Surrogate

Array = npt.NDArray[np.float64]

#: The reference point lies this share of the front's range below its worst value ...
_MARGIN = 0.1
#: ... and this many decades beyond the largest cost in sight, so that quality at the full budget is worth something.
_COST_MARGIN = math.log10(2)
#: Decades below the budget in which a smaller configuration counts as better.
_DECADES = 1.5
#: Quasi-random samples of the general acquisition function, and candidates scored at a time.
_N_SAMPLES = 64
_CHUNK = 256


class Goal(Protocol):
    """An acquisition function that can take configurations as given."""

    @property
    def incumbents(self) -> Sequence[Configured]:
        """Members of the predicted front, the best in the first measured objective first."""

    def score(self, items: Sequence[Configured]) -> Array:
        """Acquisition values (n,), larger is better."""

    def believe(self, items: Sequence[Configured]) -> None:
        """Count configurations as on their way."""


def make_goal(
    encoder: Encoder,
    objectives: Sequence[Objective],
    known: Sequence[Observation],
    outside: Sequence[Observation],
    *,
    log_budget: float,
    seed: int,
) -> Goal:
    """Fit the surrogates and choose the acquisition function.

    - nothing measured: the best exact value;
    - one measured objective, at most one exact: expected (hypervolume) improvement in closed form, in logs;
    - otherwise: `qLogNoisyExpectedHypervolumeImprovement`, exact values taken from the encoded point (Ament et al.,
      arXiv 2310.20708; Daulton et al., arXiv 2105.08195).

    Args:
        encoder: Of the space.
        objectives: Of the study.
        known: Observations with values whose configuration can be encoded; those MEASURED may be on the front.
        outside: Measured observations that cannot be encoded: they cannot teach the surrogate, but what they reached is
            reached (by the closed forms; the general case leaves them out).
        log_budget: log10(1 + budget); inf if there is none.
        seed: Of the quasi-random samples.

    Raises:
        SurrogateError: If a Gaussian process cannot be fitted.
    """
    measured, exact = measured_objectives(objectives), exact_objectives(objectives)
    if not measured:
        return _ExactGoal(exact[0])
    x = encoder.encode(known)
    surrogates = [Surrogate(x, y) for y in measured_values(known, len(measured)).T]
    reached = [item for item in known if item.evidence is Evidence.MEASURED]
    if len(measured) == 1:
        done = np.hstack([measured_values(outside, 1), _exact(outside, exact, log_budget)])
        return _ClosedGoal(encoder, surrogates[0], exact, reached, done, log_budget=log_budget)
    return _SampledGoal(encoder, surrogates, exact, reached, log_budget=log_budget, seed=seed)


class _ExactGoal:
    """Nothing to learn: the smallest (or largest) new configuration."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.incumbents: tuple[Configured, ...] = ()

    def score(self, items: Sequence[Configured]) -> Array:
        return np.array([exact_values(item.trainable_parameters, [self._objective])[0] for item in items])

    def believe(self, items: Sequence[Configured]) -> None:
        del items


class _ClosedGoal:
    """Expected improvement, or hypervolume improvement beside an exact cost, on the predicted front."""

    def __init__(
        self,
        encoder: Encoder,
        surrogate: Surrogate,
        exact: Sequence[Objective],
        reached: Sequence[Configured],
        outside: Array,
        *,
        log_budget: float,
    ) -> None:
        self._encoder = encoder
        self._surrogate = surrogate
        self._exact = exact
        self._log_budget = log_budget
        self._reached = list(reached)
        self._outside = outside
        self._update()

    def score(self, items: Sequence[Configured]) -> Array:
        mean, deviation = self._surrogate.predict(self._encoder.encode(items))
        if not self._exact:
            return log_expected_improvement(mean, deviation, float(self._values.max())).numpy()
        return log_expected_hypervolume_improvement(
            mean,
            deviation,
            -torch.as_tensor(_exact(items, self._exact, self._log_budget)[:, 0]),
            front_values=torch.as_tensor(self._values),
            front_costs=-torch.as_tensor(self._exact_values[:, 0]),
            reference_value=self._reference,
            reference_cost=-_exact_reference(self._exact, self._exact_values, self._log_budget)[0],
        ).numpy()

    def believe(self, items: Sequence[Configured]) -> None:
        self._surrogate.believe(self._encoder.encode(items))
        self._reached += items
        self._update()

    def _update(self) -> None:
        """Predict what has been reached: means carry less noise than measurements."""
        mean, _ = self._surrogate.predict(self._encoder.encode(self._reached))
        self._values = np.concatenate([mean.numpy(), self._outside[:, 0]])
        self._exact_values = np.vstack([_exact(self._reached, self._exact, self._log_budget), self._outside[:, 1:]])
        combined = np.column_stack([self._values, self._exact_values])
        self._reference = float(_worst_of_front(combined)[0])
        self.incumbents = _front_members(self._reached, combined[: len(self._reached)])


class _SampledGoal:
    """`qLogNoisyExpectedHypervolumeImprovement` over several surrogates, exact values read off the encoded point."""

    def __init__(
        self,
        encoder: Encoder,
        surrogates: Sequence[Surrogate],
        exact: Sequence[Objective],
        reached: Sequence[Configured],
        *,
        log_budget: float,
        seed: int,
    ) -> None:
        self._encoder = encoder
        self._exact = exact
        x = encoder.encode(reached)
        # Standardised values: the smoothing of the acquisition function is tuned to unit scale.
        means = torch.stack([item.predict_standardized(x)[0] for item in surrogates], dim=-1).numpy()
        self._log_budget = log_budget
        values = np.hstack([means, _exact(reached, self._exact, log_budget)])
        reference = _worst_of_front(values)
        reference[len(surrogates) :] = _exact_reference(self._exact, values[:, len(surrogates) :], log_budget)
        self.incumbents = _front_members(reached, values)
        self._pending: list[Configured] = []
        with without_compiling():
            self._acquisition = qLogNoisyExpectedHypervolumeImprovement(
                model=ModelListGP(*[item.model for item in surrogates]),
                ref_point=reference.tolist(),
                X_baseline=torch.as_tensor(x),
                sampler=SobolQMCNormalSampler(torch.Size([_N_SAMPLES]), seed=seed),
                objective=GenericMCMultiOutputObjective(self._append_exact),
                prune_baseline=True,
            )

    def score(self, items: Sequence[Configured]) -> Array:
        x = torch.as_tensor(self._encoder.encode(items)).unsqueeze(-2)  # n x 1 x d
        with torch.no_grad():
            return torch.cat([self._acquisition(chunk) for chunk in x.split(_CHUNK)]).numpy()

    def believe(self, items: Sequence[Configured]) -> None:
        self._pending += items
        self._acquisition.set_X_pending(torch.as_tensor(self._encoder.encode(self._pending)))

    def _append_exact(self, samples: Tensor, X: Tensor | None = None) -> Tensor:  # noqa: N803 - BoTorch names it so
        """Measured samples (... x q x m1) beside the exact values of their points (... x q x m)."""
        if not self._exact:
            return samples
        if X is None:
            raise ValueError("exact values are read off the points, but none were given.")
        exact = self._encoder.log_cost(X)
        if self._exact[0].direction is Direction.MINIMIZE:
            exact = (-exact).clamp_max(_cheapest_that_counts(self._log_budget))
        exact = exact.expand(samples.shape[:-1])
        return torch.cat([samples, exact.unsqueeze(-1)], dim=-1)


def _exact(items: Sequence[Configured], exact: Sequence[Objective], log_budget: float) -> Array:
    """All-maximise exact values (n x number of exact objectives), a minimised cost as far as cheaper is better."""
    rows = [exact_values(item.trainable_parameters, exact) for item in items]
    values = np.array(rows, dtype=np.float64).reshape(len(items), len(exact))
    for column, objective in zip(values.T, exact, strict=True):
        if objective.direction is Direction.MINIMIZE:
            np.minimum(column, _cheapest_that_counts(log_budget), out=column)
    return values


def _cheapest_that_counts(log_budget: float) -> float:
    """The all-maximise cost beyond which cheaper is no better: `_DECADES` below the budget.

    On a logarithmic axis every decade weighs the same, so that the search would spend as much on configurations of a
    few hundred parameters, which hardly differ from training the head alone, as on those that use the budget.
    """
    return math.inf if log_budget == math.inf else _DECADES - log_budget


def _exact_reference(exact: Sequence[Objective], values: Array, log_budget: float) -> Array:
    """The exact part of the reference point: beyond what is in sight, and beyond the budget of a minimised cost."""
    worst = [
        min(column.min(), -log_budget)
        if objective.direction is Direction.MINIMIZE and log_budget < math.inf
        else column.min()
        for objective, column in zip(exact, values.T, strict=True)
    ]
    return np.array(worst, dtype=np.float64) - _COST_MARGIN


def _worst_of_front(values: Array) -> Array:
    """The worst value of each objective on the front, moved out by `_MARGIN` of its range there.

    The front, not all data: one collapsed trial would otherwise make every cheap configuration look like progress.
    A front without range borrows that of all data.
    """
    front = values[non_dominated_mask(values)]
    span = np.ptp(front, axis=0)
    span = np.where(span > 0, span, np.ptp(values, axis=0))
    return np.asarray(front.min(axis=0) - _MARGIN * np.where(span > 0, span, 1.0))


def _front_members(items: Sequence[Configured], values: Array) -> tuple[Configured, ...]:
    """The non-dominated ones, the best in the first objective first."""
    members = np.flatnonzero(non_dominated_mask(values))
    return tuple(items[int(i)] for i in sorted(members, key=lambda i: -values[i, 0]))
