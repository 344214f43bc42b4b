"""Optuna's samplers on a table, in their own studies and at their best settings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import TrialState as OptunaState

from autopeft.configuration import OptionValue, Parameter
from autopeft.samplers import Source, Suggestion, optuna_distribution
from autopeft.samplers._candidates import CandidateSource
from autopeft.samplers._design import Design
from autopeft.samplers._values import from_unit, random_value
from autopeft.study import Trial, TrialState
from benchmarks.replay.world import World

#: Proposals without a configuration before a row is drawn instead.
_MAX_REJECTIONS = 20
_GENERATION = "NSGAIISampler:generation"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an Optuna sampler is run.

    Args:
        name: "tpe" (multivariate), "nsga2" or "gp".
        is_exact: Whether the sampler's own criterion is maximised over all rows that are left (TPE's ratio of
            densities, GPSampler's expected hypervolume improvement); otherwise it searches the whole space as always
            and the nearest row stands for what it proposes.
        has_design: Whether it begins with the points that our sampler begins with, instead of random rows.
        n_initial: Trials before its model decides.
        population: Of NSGA-II.
    """

    name: str
    is_exact: bool = False
    has_design: bool = False
    n_initial: int = 10
    population: int = 50


class OptunaRival:
    """An Optuna study beside the replay.

    What Optuna is told is what was evaluated: its proposal is withdrawn and the row takes its place, running until its
    values are known. It maximises the quality and minus the logarithm of the parameters, no lower than the floor below
    which the hypervolume does not count them; a failed row gets the worst quality so far. Parameters that a row does
    not use get a value all the same, so that joint densities, kernels and crossover cover one flat space: for TPE and
    NSGA-II a random one that belongs to the row; for GPSampler the middle of the range, so that no distance comes of
    it.

    Args:
        world: The table.
        settings: Of the sampler.
        seed: Of the sampler.
    """

    def __init__(self, world: World, settings: Settings, *, seed: int) -> None:
        self._world = world
        self._settings = settings
        self._parameters = world.space.parameters
        self._distributions = {item.name: optuna_distribution(item) for item in self._parameters}
        self._flat = [
            _flat(row.point.params, self._parameters, int(row.point.fingerprint, 16), settings.name)
            for row in world.rows
        ]
        self._rng = np.random.default_rng([seed, 7])
        self._left = list(range(len(world)))
        self._numbers: dict[str, int] = {}  # Optuna's number of a running row
        candidates = [row.point.params for row in world.rows]
        self._design = Design(CandidateSource(world.space, candidates=candidates), seed=seed)
        self._n_asked = 0
        with _quiet():
            self._study = optuna.create_study(directions=["maximize", "maximize"], sampler=self._make_sampler(seed))

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        """See `autopeft.samplers.Sampler`; trials must come from one replay, in which every suggestion is run."""
        found = []
        with _quiet():
            self._learn(trials)
            while len(found) < n and self._left:
                row, attributes, source = self._propose()
                self._left.remove(row)
                self._n_asked += 1
                self._start(row, attributes)
                found.append(Suggestion(params=self._world.rows[row].point.params, notes={"source": source.value}))
        return found

    def _make_sampler(self, seed: int) -> BaseSampler:
        settings = self._settings
        if settings.name == "nsga2":
            return NSGAIISampler(population_size=settings.population, seed=seed)
        if settings.name == "tpe":
            sampler = TPESampler(multivariate=True, n_startup_trials=settings.n_initial, seed=seed)
            if settings.is_exact:
                sampler._parzen_estimator_cls = self._row_estimator()
            return sampler
        if settings.is_exact:
            return _RowGPSampler(self, n_startup_trials=settings.n_initial, seed=seed)
        return GPSampler(n_startup_trials=settings.n_initial, seed=seed)

    def _row_estimator(self) -> type[_ParzenEstimator]:
        rival = self

        class RowEstimator(_ParzenEstimator):
            """Candidates for TPE's criterion are the rows that are left, instead of draws."""

            def sample(self, rng: np.random.RandomState, size: int) -> dict[str, np.ndarray]:
                return {
                    name: np.array([item.to_internal_repr(rival._flat[row][name]) for row in rival._left])
                    for name, item in rival._distributions.items()
                }

        return RowEstimator

    def _propose(self) -> tuple[int, Mapping[str, Any], Source]:
        """A row that is left, the attributes that Optuna gave the proposal, and where it comes from."""
        settings = self._settings
        if self._n_asked < settings.n_initial and (settings.has_design or settings.is_exact):
            return self._initial(), {}, Source.INITIAL
        for _ in range(_MAX_REJECTIONS):
            trial = self._study.ask(self._distributions)
            params = {name: trial.params[name] for name in self._distributions}
            frozen = self._study._storage.get_trial(trial._trial_id)
            attributes = {key: value for key, value in frozen.system_attrs.items() if key == _GENERATION}
            self._study.tell(trial, state=OptunaState.FAIL)
            row = self._world.nearest(params, self._left)
            if row is not None:
                return row, attributes, Source.MODEL
        return int(self._rng.choice(self._left)), {}, Source.RANDOM

    def _initial(self) -> int:
        if not self._settings.has_design:
            return int(self._rng.choice(self._left))
        left = set(self._left)
        taken = {row.point.fingerprint for i, row in enumerate(self._world.rows) if i not in left}
        point = self._design.propose(self._n_asked, self._rng, taken)
        if point is None:
            raise ValueError("no row is left.")
        return self._world.index[point.fingerprint]

    def _start(self, row: int, attributes: Mapping[str, Any]) -> None:
        self._study.add_trial(
            optuna.trial.create_trial(
                params=self._flat[row],
                distributions=self._distributions,
                state=OptunaState.RUNNING,
                system_attrs=dict(attributes),
            )
        )
        number = self._study.get_trials(deepcopy=False)[-1].number
        self._numbers[self._world.rows[row].point.fingerprint] = number

    def _learn(self, trials: Sequence[Trial]) -> None:
        """Tell Optuna what has ended since."""
        qualities = [value for item in trials if (value := self._quality(item)) is not None]
        for trial in trials:
            fingerprint = trial.configuration.fingerprint
            if not trial.state.is_finished or fingerprint not in self._numbers:
                continue
            number = self._numbers.pop(fingerprint)
            quality = self._quality(trial)
            if quality is None and not qualities:
                self._study.tell(number, state=OptunaState.FAIL)
                continue
            cost = -float(self._world.log_costs[self._world.index[fingerprint]])
            self._study.tell(number, [min(qualities) if quality is None else quality, cost])

    def _quality(self, trial: Trial) -> float | None:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return None
        return trial.value(self._world.metric)


class _RowGPSampler(GPSampler):
    """GPSampler whose acquisition function is maximised over the rows that are left, exactly."""

    def __init__(self, rival: OptunaRival, **settings: Any) -> None:
        super().__init__(**settings)
        self._rival = rival

    def _optimize_acqf(self, acqf: Any, best_params: np.ndarray | None) -> np.ndarray:
        params = [self._rival._flat[row] for row in self._rival._left]
        rows = acqf.search_space.get_normalized_params(params, params)
        return np.asarray(rows[int(np.argmax(acqf.eval_acqf_no_grad(rows)))])


def _flat(
    params: Mapping[str, OptionValue], parameters: Sequence[Parameter], seed: int, name: str
) -> dict[str, OptionValue]:
    """A value for every parameter, active or not."""
    rng = np.random.default_rng(seed)
    silent = {item.name: _middle(item) if name == "gp" else random_value(item, rng) for item in parameters}
    return {**silent, **params}


def _middle(parameter: Parameter) -> OptionValue:
    if parameter.type in ("bool", "categorical"):
        return (parameter.values or ())[0]
    return from_unit(parameter, 0.5)


@contextmanager
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)
