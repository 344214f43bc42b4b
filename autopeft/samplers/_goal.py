"""What Bayesian optimisation maximises, for each combination of measured and exactly known objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from autopeft.objectives import Direction, Objective, hypervolume
from autopeft.samplers._acquisition import log_expected_hypervolume_improvement, log_expected_improvement
from autopeft.samplers._encoding import Encoder
from autopeft.samplers._feasibility import Feasibility
from autopeft.samplers._history import Evidence, Observation, measured_values
from autopeft.samplers._known import Configured, KnownCosts
from autopeft.samplers._reference import cheapest_that_counts, exact_reference, front_members, worst_reached
from autopeft.samplers._sampled import SampledImprovement
from autopeft.samplers._surrogate import GaussianProcesses, Surrogate

Array = npt.NDArray[np.float64]

#: (encoded configurations (n x d), natural all-maximise values (n,), further noise (n,)) -> a fitted surrogate.
FitSurrogate = Callable[[Array, Array, Array], Surrogate]


def fit_default(x: Array, y: Array, noise_sd: Array) -> Surrogate:
    """The surrogate of the default sampler."""
    return GaussianProcesses.fit(x, y, noise_sd=noise_sd)


class Goal(Protocol):
    """An acquisition function that can take configurations as given."""

    @property
    def incumbents(self) -> Sequence[Configured]:
        """Members of the predicted front, the best in the first measured objective first."""

    @property
    def surrogates(self) -> Sequence[Surrogate]:
        """Of the measured objectives, in their order."""

    def score(self, items: Sequence[Configured]) -> Array:
        """Logarithm of the expected improvement of the front (n,), larger is better."""

    def believe(self, items: Sequence[Configured]) -> None:
        """Count configurations as on their way."""


@dataclass(frozen=True, kw_only=True)
class Evidences:
    """What a goal is made from.

    Args:
        known: Observations with values whose configuration can be encoded; those MEASURED may be on the front.
        outside: Measured observations that cannot be encoded: they cannot teach the surrogate, but what they reached is
            reached (by the closed forms; the general case leaves them out).
        log_budget: log10(1 + budget) in parameters; inf if there is none.
        feasibility: Learned constraints.
    """

    known: Sequence[Observation]
    outside: Sequence[Observation] = ()
    log_budget: float
    feasibility: Feasibility = field(default_factory=Feasibility)


def make_goal(
    encoder: Encoder,
    costs: KnownCosts,
    measured: Sequence[Objective],
    evidence: Evidences,
    *,
    seed: int,
    fit: FitSurrogate = fit_default,
    fits: Sequence[FitSurrogate] = (),
) -> Goal:
    """Fit the surrogates and choose the acquisition function.

    - nothing measured: the exact gain in hypervolume;
    - one measured objective, at most one exact: expected (hypervolume) improvement in closed form, in logs;
    - otherwise: noisy expected hypervolume improvement over sampled fronts, exact values taken as given (Daulton et
      al., arXiv 2105.08195; see `SampledImprovement`).

    Learned constraints multiply the improvement by the probability that they hold (Gardner et al., "Bayesian
    optimization with inequality constraints", ICML 2014); while nothing measured holds them, that probability is all.

    Args:
        encoder: Of the space.
        costs: The exact objectives.
        measured: The other objectives.
        evidence: What is known.
        seed: Of the sampled fronts.
        fit: Fits one surrogate.
        fits: One for each measured objective, in place of `fit`; empty for none.

    Raises:
        SurrogateError: If a surrogate cannot be fitted.
    """
    exact = _Exact(costs, evidence.log_budget)
    if not measured:
        return _ExactGoal(exact, evidence)
    x = encoder.encode(evidence.known)
    values = measured_values(evidence.known, len(measured))
    noise = np.array([item.noise_sd or (0.0,) * len(measured) for item in evidence.known], dtype=np.float64).reshape(
        values.shape
    )
    chosen = fits or [fit] * len(measured)
    surrogates = [fit_one(x, y, sd) for fit_one, y, sd in zip(chosen, values.T, noise.T, strict=True)]
    return _ModelGoal(encoder, surrogates, exact, evidence, seed=seed)


class _Exact:
    """All-maximise exact values, a minimised parameter count as far as cheaper is better."""

    def __init__(self, costs: KnownCosts, log_budget: float) -> None:
        self._costs = costs
        self._log_budget = log_budget
        self.objectives = costs.objectives

    def unlimited(self, items: Sequence[Configured]) -> Array:
        """Values (n x k), cheaper always better."""
        return self._costs.values(items)

    def values(self, items: Sequence[Configured]) -> Array:
        """Values (n x k)."""
        values = self._costs.values(items)
        for column, objective in zip(values.T, self.objectives, strict=True):
            if objective.name == "trainable_parameters" and objective.direction is Direction.MINIMIZE:
                np.minimum(column, cheapest_that_counts(self._log_budget), out=column)
        return values

    def reference(self, values: Array) -> Array:
        """Reference (k,)."""
        return exact_reference(self.objectives, values, self._log_budget)


class _ExactGoal:
    """Nothing to learn: the new configuration that adds most hypervolume, or is best where there is one objective."""

    def __init__(self, exact: _Exact, evidence: Evidences) -> None:
        self._exact = exact
        self._feasibility = evidence.feasibility
        reached = [item for item in evidence.known if item.evidence is Evidence.MEASURED]
        self._front = exact.values(reached)
        self.incumbents: tuple[Configured, ...] = ()
        self.surrogates: tuple[Surrogate, ...] = ()

    def score(self, items: Sequence[Configured]) -> Array:
        if len(self._exact.objectives) == 1:
            return self._exact.unlimited(items)[:, 0]
        values = self._exact.values(items)
        reference = self._exact.reference(np.vstack([values, self._front]))
        before = hypervolume(self._front, reference)
        gains = [hypervolume(np.vstack([self._front, row]), reference) - before for row in values]
        return np.asarray(gains) + 1e-9 * values.sum(axis=1)

    def believe(self, items: Sequence[Configured]) -> None:
        self._front = np.vstack([self._front, self._exact.values(items)])


class _ModelGoal:
    """Improvement of the predicted front: in closed form where there is one, else sampled."""

    def __init__(
        self, encoder: Encoder, surrogates: Sequence[Surrogate], exact: _Exact, evidence: Evidences, *, seed: int
    ) -> None:
        self._encoder = encoder
        self.surrogates = surrogates
        self._exact = exact
        self._feasibility = evidence.feasibility
        self._seed = seed
        measured = [item for item in evidence.known if item.evidence is Evidence.MEASURED]
        self._reached: list[Configured] = [item for item in measured if self._feasibility.holds(item)]
        n_objectives = len(surrogates) + len(exact.objectives)
        self._has_closed_form = len(surrogates) == 1 and n_objectives <= 2
        outside = [item for item in evidence.outside if self._feasibility.holds(item)]
        done = measured_values(outside, len(surrogates))
        done = np.column_stack([model.transform(y) for model, y in zip(surrogates, done.T, strict=True)])
        self._outside = np.hstack([done, exact.values(outside)]).reshape(len(outside), n_objectives)
        self._sampled: SampledImprovement | None = None
        self.incumbents: tuple[Configured, ...] = ()
        self._update()
        if self._reached and not self._has_closed_form:
            self._sampled = self._make_sampled()

    def score(self, items: Sequence[Configured]) -> Array:
        x = self._encoder.encode(items)
        allowed = self._feasibility.log_probability(x)
        if not self._reached:
            return allowed
        if self._sampled is not None:
            return self._sampled.score(x, self._exact.values(items)) + allowed
        if not self._exact.objectives:
            return self._improvement(x) + allowed
        mean, deviation = self.surrogates[0].predict(x)
        k = len(self.surrogates)
        return (
            log_expected_hypervolume_improvement(
                mean,
                deviation,
                -torch.as_tensor(self._exact.values(items)[:, 0]),
                front_values=torch.as_tensor(self._values[:, 0]),
                front_costs=-torch.as_tensor(self._values[:, k]),
                reference_value=float(self._reference[0]),
                reference_cost=-float(self._reference[k]),
            ).numpy()
            + allowed
        )

    def believe(self, items: Sequence[Configured]) -> None:
        x = self._encoder.encode(items)
        for surrogate in self.surrogates:
            surrogate.believe(x)
        self._feasibility.believe(x)
        if self._reached:
            self._reached += items
        self._update()
        if self._sampled is not None:
            self._sampled.believe(x, self._exact.values(items))

    def _improvement(self, x: Array) -> Array:
        mean, deviation = self.surrogates[0].predict(x)
        return log_expected_improvement(mean, deviation, float(self._values[:, 0].max())).numpy()

    def _update(self) -> None:
        """Predict what has been reached: means carry less noise than measurements."""
        if not self._reached:
            return
        x = self._encoder.encode(self._reached)
        means = np.column_stack([model.predict(x)[0].numpy() for model in self.surrogates])
        here = np.hstack([means, self._exact.values(self._reached)])
        self._values = np.vstack([here, self._outside])
        self._reference = worst_reached(self._values)
        k = len(self.surrogates)
        self._reference[k:] = self._exact.reference(self._values[:, k:])
        self.incumbents = tuple(self._reached[i] for i in front_members(here))

    def _make_sampled(self) -> SampledImprovement:
        return SampledImprovement(
            self.surrogates,
            self._encoder.encode(self._reached),
            self._exact.values(self._reached),
            reference=self._reference,
            seed=self._seed,
        )
