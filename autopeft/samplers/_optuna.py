"""Optuna's samplers, rebuilt from the trials at every ask."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.configuration import BoundSpace, OptionValue, Parameter
from autopeft.objectives import Constraint, Objective
from autopeft.samplers._base import Source, Suggestion
from autopeft.samplers._candidates import point_source
from autopeft.samplers._express import Recognizer
from autopeft.samplers._history import Evidence, History, Observation
from autopeft.samplers._known import KnownCosts
from autopeft.samplers._points import Point
from autopeft.samplers._values import random_value
from autopeft.study import Fidelity, Trial

if TYPE_CHECKING:
    import optuna

#: Generations of this size let selection begin within a search of a few dozen trials; Optuna's default of 50 is random
#: search for its first 50 trials.
NSGA2_POPULATION = 10
#: Proposals of Optuna that turn out infeasible or already taken before uniform sampling takes over.
_MAX_REJECTIONS = 50


class OptunaSampler:
    """A sampler of Optuna as a function of the trials.

    Every ask builds an in-memory study from the stored trials and asks a freshly seeded Optuna sampler. Rivals must
    not be straw men, so each gets what this product knows: exact costs as logarithms, the shared policy for failures
    (`Evidence`), pending trials, baselines that are points of the space. Parameters that a point does not use get a
    value all the same, random but fixed by the configuration: Optuna then sees one flat space in which crossover and
    joint densities cover every parameter. Proposals that are infeasible or taken are rejected and asked again.

    Args:
        name: ``"tpe"`` (multivariate) or ``"nsga2"`` (population `NSGA2_POPULATION`).
        space: What is searched.
        objectives: What is optimised.
        seed: Of the study.
        fidelity: Of the study's search trials.
        constraints: Those on known costs are kept.
        candidates: The only points that may be proposed; None for all.
    """

    def __init__(
        self,
        name: str,
        *,
        space: BoundSpace,
        objectives: tuple[Objective, ...],
        seed: int,
        fidelity: Fidelity,
        constraints: tuple[Constraint, ...] = (),
        candidates: Sequence[Mapping[str, OptionValue]] | None = None,
    ) -> None:
        self._name = name
        self._points = point_source(space, constraints, candidates)
        self._recognizer = Recognizer(self._points, seed=seed)
        self._costs = KnownCosts(space, objectives)
        self._objectives = objectives
        self._seed = seed
        self._fidelity = fidelity

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        history = History.of(trials, objectives=self._objectives, seed=self._seed, fidelity=self._fidelity)
        rng = history.generator(self._seed)
        taken = set(history.taken)
        chosen: list[Point] = []
        with _quiet_optuna():
            study = self._rebuild(history, int(rng.integers(2**31)))
            while len(chosen) < n and (point := self._propose(study, taken)) is not None:
                chosen.append(point)
                taken.add(point.fingerprint)
        found = [
            Suggestion(
                params=point.params, notes={"source": Source.MODEL.value, "why": f"proposed by Optuna ({self._name})"}
            )
            for point in chosen
        ]
        notes = {"source": Source.RANDOM.value, "why": f"Optuna ({self._name}) proposed nothing feasible and new"}
        rest = self._points.fresh(rng, n - len(chosen), taken)
        return found + [Suggestion(params=point.params, notes=notes) for point in rest]

    def _propose(self, study: optuna.Study, taken: set[str]) -> Point | None:
        """The study's next feasible and new point; None after too many rejections."""
        import optuna

        parameters = self._points.space.parameters
        distributions = {item.name: optuna_distribution(item) for item in parameters}
        for _ in range(_MAX_REJECTIONS):
            trial = study.ask(distributions)
            point = self._points.make({item.name: trial.params[item.name] for item in parameters})
            if point is not None and point.fingerprint not in taken:
                return point  # the trial stays RUNNING: the rest of the batch knows it is on its way
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def _rebuild(self, history: History, seed: int) -> optuna.Study:
        import optuna

        study = optuna.create_study(
            directions=["maximize"] * len(self._objectives), sampler=_optuna_sampler(self._name, seed)
        )
        parameters = self._points.space.parameters
        distributions = {item.name: optuna_distribution(item) for item in parameters}
        n_complete = 0
        for item in history.observations:
            point = self._recognizer.find(item.configuration, item.params)
            if point is None:
                continue
            is_complete = item.evidence is not Evidence.PENDING
            study.add_trial(
                optuna.trial.create_trial(
                    params=_flat(
                        point.params, parameters, np.random.default_rng([self._seed, int(point.fingerprint, 16)])
                    ),
                    distributions=distributions,
                    values=self._values(item) if is_complete else None,
                    state=optuna.trial.TrialState.COMPLETE if is_complete else optuna.trial.TrialState.RUNNING,
                    # A generation is full when that many trials are complete, as it would be in a live study.
                    system_attrs={"NSGAIISampler:generation": n_complete // NSGA2_POPULATION},
                )
            )
            n_complete += is_complete
        return study

    def _values(self, item: Observation) -> list[float]:
        """All-maximise values in the order of the objectives."""
        exact = iter(self._costs.values([item])[0].tolist())
        measured = iter(item.values or ())
        return [next(exact if item in self._costs.objectives else measured) for item in self._objectives]


def _flat(
    params: Mapping[str, OptionValue], parameters: Sequence[Parameter], rng: np.random.Generator
) -> dict[str, OptionValue]:
    """A value for every parameter, active or not."""
    silent = {item.name: random_value(item, rng) for item in parameters}
    return {**silent, **params}


def optuna_distribution(parameter: Parameter) -> Any:
    """The parameter as Optuna says it.

    Returns:
        An `optuna.distributions.BaseDistribution`.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low, high = parameter.low, parameter.high
    if low is None or high is None:
        return CategoricalDistribution(parameter.values or ())
    if parameter.type == "int":
        return IntDistribution(int(low), int(high), log=parameter.log)
    return FloatDistribution(low, high, log=parameter.log)


def _optuna_sampler(name: str, seed: int) -> Any:
    from optuna.samplers import NSGAIISampler, TPESampler

    if name == "tpe":
        return TPESampler(multivariate=True, constant_liar=True, seed=seed)
    return NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna announces every in-memory study and result; these are internal here."""
    import optuna
    from optuna.exceptions import ExperimentalWarning

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)
