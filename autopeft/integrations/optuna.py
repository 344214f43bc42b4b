"""Our samplers as an Optuna sampler, and our studies in an Optuna storage.

An ordinary Optuna study, searched by this product's Bayesian sampler::

    import optuna
    from autopeft.integrations import bind
    from autopeft.integrations.optuna import AutoPEFTSampler, suggest

    space = bind("default", backbone="minilm", budget="1%")

    def objective(trial):
        configuration = space.compile(suggest(trial, space))
        return train(configuration), space.parameter_count(configuration)

    sampler = AutoPEFTSampler(space, objectives=("accuracy", "trainable_parameters"))
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler, storage="sqlite:///study.db")
    study.optimize(objective, n_trials=40)
"""

from __future__ import annotations

import contextlib
import logging
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from autopeft.configuration import BoundSpace, OptionValue
from autopeft.integrations._foreign import FIDELITY, foreign_trial, named_objectives, point_of
from autopeft.integrations._optuna_export import export_study
from autopeft.objectives import Direction, Objective
from autopeft.samplers import Sampler, make_sampler, optuna_distribution
from autopeft.study import Trial, TrialState

__all__ = ["AutoPEFTSampler", "export_study", "search_space", "suggest"]

logger = logging.getLogger(__name__)

#: System attributes of a trial: the proposed point, known to others before its parameters are; and the sampler's notes.
PARAMS_ATTRIBUTE = "autopeft:params"
NOTES_ATTRIBUTE = "autopeft:suggestion"

_STATES = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.WAITING: TrialState.WAITING,
}


def search_space(space: BoundSpace) -> dict[str, BaseDistribution]:
    """Every parameter of a space as Optuna's distribution, conditional ones included."""
    return {item.name: optuna_distribution(item) for item in space.parameters}


def suggest(trial: optuna.Trial, space: BoundSpace) -> dict[str, OptionValue]:
    """Ask an Optuna trial for a point of a space: parents first, and only for what is active.

    Args:
        trial: Of a study with any sampler.
        space: What is searched.

    Returns:
        Canonical params for `BoundSpace.compile`. A sampler that does not know the space, such as Optuna's own, may
        suggest a point that `compile` refuses with `InfeasibleError`.
    """
    params: dict[str, OptionValue] = {}
    for item in space.parameters:
        if item.name not in space.active(params):
            continue
        if item.low is None or item.high is None:
            params[item.name] = trial.suggest_categorical(item.name, item.values or ())
        elif item.type == "int":
            params[item.name] = trial.suggest_int(item.name, int(item.low), int(item.high), log=item.log)
        else:
            params[item.name] = trial.suggest_float(item.name, item.low, item.high, log=item.log)
    return space.canonical(params)


class AutoPEFTSampler(BaseSampler):
    """A sampler of `autopeft.samplers` for Optuna studies, with one objective or several.

    It has no state: what it proposes is a function of the study's trials and the seed, so that a study resumed from a
    storage by a fresh sampler goes on as if nothing had happened. Trials that are running, enqueued or failed count.
    Objective functions ask for their parameters by `suggest`, or by ``trial.suggest_*`` with the distributions of
    `search_space`; parameters that the space does not have are drawn uniformly and mean nothing to the sampler.

    Optuna does not say why a trial failed. One that returned an infinite value counts as diverged; any other failure
    teaches nothing but is not proposed again.

    Args:
        space: What is searched, see `autopeft.integrations.bind`.
        objectives: Name of each value that the objective function returns. The name ``trainable_parameters`` says that
            the value is the configuration's own parameter count: it is then computed exactly for every candidate and
            never modelled. None takes the names given by ``study.set_metric_names``, if there are any.
        sampler: Key of `autopeft.samplers.SAMPLERS`.
        seed: With the trials it decides every proposal.

    Raises:
        UsageError: At the first trial, if the names do not fit the study's directions.
    """

    def __init__(
        self, space: BoundSpace, *, objectives: Sequence[str] | None = None, sampler: str = "bayesian", seed: int = 0
    ) -> None:
        self._space = space
        self._names = None if objectives is None else tuple(objectives)
        self._name = sampler
        self._seed = seed
        self._made: tuple[tuple[Objective, ...], Sampler] | None = None
        # (study, trial) that a warning was given for: it matters to nothing but the log.
        self._warned: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return search_space(self._space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # Threads of one process take turns, so that each knows what the one before it proposed.
        with self._lock:
            objectives, sampler = self._made_for(study)
            suggestions = sampler.ask(self._trials(study, trial, [item.name for item in objectives]), 1)
            if not suggestions:
                return self._repeat(study, trial)
            params = dict(suggestions[0].params)
            storage = study._storage
            storage.set_trial_system_attr(trial._trial_id, PARAMS_ATTRIBUTE, params)
            storage.set_trial_system_attr(trial._trial_id, NOTES_ATTRIBUTE, dict(suggestions[0].notes))
        return params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        # Inactive parameters, foreign ones, and distributions narrower than the space's.
        entropy = [self._seed, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_made": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _made_for(self, study: optuna.Study) -> tuple[tuple[Objective, ...], Sampler]:
        """The study's objectives, and our sampler for them."""
        directions = [
            Direction.MAXIMIZE if item == optuna.study.StudyDirection.MAXIMIZE else Direction.MINIMIZE
            for item in study.directions
        ]
        names = self._names or study.metric_names or [f"value_{i}" for i in range(len(directions))]
        objectives = named_objectives(names, directions)
        if self._made is None or self._made[0] != objectives:
            made = make_sampler(
                self._name, space=self._space, objectives=objectives, seed=self._seed, fidelity=FIDELITY
            )
            self._made = objectives, made
        return self._made

    def _trials(self, study: optuna.Study, asking: FrozenTrial, names: Sequence[str]) -> list[Trial]:
        """What the sampler may know: all trials but the one that asks, and younger ones only once they are finished."""
        known = [
            item
            for item in study.get_trials(deepcopy=False)
            if item.number < asking.number or (item.number > asking.number and item.state.is_finished())
        ]
        return [trial for item in known if (trial := self._read(study, item, names)) is not None]

    def _read(self, study: optuna.Study, item: FrozenTrial, names: Sequence[str]) -> Trial | None:
        """A trial of Optuna's as one of ours; None if it is no point of the space."""
        params = dict(item.params)
        if item.state is not OptunaState.COMPLETE:
            # Its parameters are stored one by one as the objective function asks for them.
            proposed = item.system_attrs.get(PARAMS_ATTRIBUTE, {})
            params = {**proposed, **item.system_attrs.get("fixed_params", {}), **params}
        point = point_of(self._space, params)
        if point is None:
            key = (study.study_name, item.number)
            if params and key not in self._warned:
                self._warned.add(key)
                logger.warning(
                    "Trial %d is no feasible point of search space %s: it teaches nothing.",
                    item.number,
                    self._space.space.name,
                )
            return None
        values = item.values
        if values is not None and len(values) != len(names):
            values = None
        return foreign_trial(
            item.number,
            point,
            self._space,
            seed=self._seed,
            state=_STATES[item.state],
            values=None if values is None else dict(zip(names, values, strict=True)),
        )

    def _repeat(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """A point that was evaluated before, because there is no other; `study.optimize` ends after it."""
        logger.warning("Search space %s is exhausted: every configuration was proposed.", self._space.space.name)
        with contextlib.suppress(RuntimeError):  # stopping is for `study.optimize`, not for ask and tell
            study.stop()
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, trial.number]))
        return dict(self._space.sample(rng))
