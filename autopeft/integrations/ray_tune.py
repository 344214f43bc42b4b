"""Our samplers as a Ray Tune searcher; needs ``pip install 'autopeft[ray]'``.

    from ray import tune
    from autopeft.integrations import bind
    from autopeft.integrations.ray_tune import AutoPEFTSearcher

    space = bind("default", backbone="minilm", budget="1%")

    def trainable(config):
        configuration = space.compile(config)
        tune.report({"accuracy": train(configuration)})

    searcher = AutoPEFTSearcher(space, metric=["accuracy", "trainable_parameters"], mode=["max", "min"])
    tuner = tune.Tuner(trainable, tune_config=tune.TuneConfig(search_alg=searcher, num_samples=40))
    tuner.fit()

`autopeft search` does not go through Ray Tune, which would own the study beside the database: this is for those who run
Tune already.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from autopeft.configuration import BoundSpace, OptionValue
from autopeft.exceptions import UsageError
from autopeft.integrations._foreign import EXACT, FIDELITY, foreign_trial, named_objectives, point_of
from autopeft.objectives import Direction, Objective
from autopeft.samplers import Sampler, make_sampler
from autopeft.study import Trial, TrialState

__all__ = ["AutoPEFTSearcher"]

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_ITERATION = "training_iteration"
_MODES = {"max": Direction.MAXIMIZE, "min": Direction.MINIMIZE}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What the searcher keeps of a trial: all that the sampler's answers depend on.

    Args:
        trial_id: Tune's name of it.
        params: The point that was suggested.
        state: A `TrialState`; COMPLETE also where Tune stopped the trial.
        values: Natural values by objective; None if there are none.
        iteration: Tune's ``training_iteration`` of the last result; None before the first.
        is_stopped: Whether Tune stopped it, be it for its length or because a scheduler gave it up.
    """

    trial_id: str
    params: dict[str, OptionValue]
    state: str = TrialState.RUNNING.value
    values: dict[str, float] | None = None
    iteration: int | None = None
    is_stopped: bool = False


class AutoPEFTSearcher(Searcher):
    """A sampler of `autopeft.samplers` for `ray.tune.Tuner`, with one metric or several.

    Its answers are a function of the seed and of the records of all trials so far; Tune saves the records with the
    experiment as JSON, and ``Tuner.restore`` goes on from there. A trial that raised counts as failed, one whose metric
    is infinite or NaN as diverged. Tune does not say why it stopped a trial: one that it stopped in an earlier
    iteration than the longest trial reached counts as pruned.

    Limit the trials at a time by ``TuneConfig(max_concurrent_trials=...)``: every suggestion knows which points are on
    their way, but not yet what they reach.

    Args:
        space: What is searched, see `autopeft.integrations.bind`; a trial's config is a point of it.
        metric: Name or names of what trials report. ``trainable_parameters`` need not be reported: it is computed
            exactly from the configuration and never modelled. None takes that of the `TuneConfig`, which Tune hands on
            only where there is a ``param_space``.
        mode: ``"max"`` or ``"min"`` for each metric.
        sampler: Key of `autopeft.samplers.SAMPLERS`.
        seed: With the trials it decides every proposal.

    Raises:
        UsageError: If metric and mode do not fit together.
    """

    def __init__(
        self,
        space: BoundSpace,
        *,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        sampler: str = "bayesian",
        seed: int = 0,
    ) -> None:
        self._space = space
        self._sampler_name = sampler
        self._seed = seed
        self._records: dict[str, _Record] = {}
        self._sampler: Sampler | None = None
        self._objectives = _objectives(metric, mode)
        # Tune insists that trials report what a searcher names: the computed one is not named.
        measured = [item for item in self._objectives if item.name != EXACT]
        modes = ["max" if item.direction is Direction.MAXIMIZE else "min" for item in measured]
        super().__init__(metric=[item.name for item in measured] or None, mode=modes or None)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Take metric and mode from Tune where none were given; a ``param_space`` beside ours is passed through."""
        del spec
        if metric is not None and not self._objectives:
            self._objectives = _objectives(metric, mode)
            self._metric, self._mode = metric, mode
        names = {item.name for item in self._space.parameters}
        twice = sorted(names & config.keys())
        if twice:
            raise UsageError(
                f"param_space sets {', '.join(twice)}, which search space {self._space.space.name} varies."
            )
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of a trial; `Searcher.FINISHED` when the space is exhausted."""
        if not self._objectives:
            raise UsageError("no metric to search for; give metric and mode to AutoPEFTSearcher.")
        if self._sampler is None:
            self._sampler = make_sampler(
                self._sampler_name,
                space=self._space,
                objectives=self._objectives,
                seed=self._seed,
                fidelity=FIDELITY,
            )
        suggestions = self._sampler.ask(self._trials(), 1)
        if not suggestions:
            return str(Searcher.FINISHED)
        params = dict(suggestions[0].params)
        self._records[trial_id] = _Record(trial_id=trial_id, params=params)
        return dict(params)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Keep how far a trial has come; Tune tells every result but the one at which it stops a trial."""
        record = self._records.get(trial_id)
        if record is not None:
            self._records[trial_id] = replace(record, iteration=result.get(_ITERATION))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Keep what a trial reached."""
        record = self._records.get(trial_id)
        if record is None:
            logger.warning("Trial %s was not suggested by this searcher: it teaches nothing.", trial_id)
            return
        values = None if error or result is None else self._values(result)
        iteration = None if result is None else result.get(_ITERATION)
        self._records[trial_id] = replace(
            record,
            state=(TrialState.FAILED if values is None else TrialState.COMPLETE).value,
            values=values,
            iteration=iteration,
            is_stopped=iteration is not None and iteration != record.iteration,
        )

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        """Teach a point that was evaluated elsewhere, if it is one of the space; for one measured metric.

        Raises:
            UsageError: If there are several measured metrics, or the point is not one of the space.
        """
        del intermediate_values
        names = [item.name for item in self._objectives if item.name != EXACT]
        if len(names) != 1:
            raise UsageError(
                f"an evaluated point has one value, but the searcher measures {', '.join(names) or 'nothing'}."
            )
        point = point_of(self._space, parameters)
        if point is None:
            raise UsageError(f"{dict(parameters)} is no feasible point of search space {self._space.space.name}.")
        state = TrialState.FAILED if error else TrialState.PRUNED if pruned else TrialState.COMPLETE
        values = None if error else {names[0]: float(value)}
        trial_id = f"evaluated_{len(self._records)}"
        self._records[trial_id] = _Record(trial_id=trial_id, params=point, state=state.value, values=values)

    def save(self, checkpoint_path: str) -> None:
        """Write the records as JSON; `restore` is the inverse."""
        data = {"schema_version": _SCHEMA_VERSION, "records": [asdict(item) for item in self._records.values()]}
        Path(checkpoint_path).write_text(json.dumps(data), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Read records that `save` wrote.

        Raises:
            UsageError: If the file is not one.
        """
        try:
            data = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
            if data["schema_version"] != _SCHEMA_VERSION:
                raise ValueError(f"schema version {data['schema_version']}, not {_SCHEMA_VERSION}")
            records = [_Record(**item) for item in data["records"]]
            if any(point_of(self._space, item.params) != item.params for item in records):
                raise ValueError(f"its points are not of search space {self._space.space.name} under this budget")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{checkpoint_path} holds no saved AutoPEFTSearcher: {error}.") from error
        self._records = {item.trial_id: item for item in records}

    def __getstate__(self) -> dict[str, Any]:
        # Samplers hold caches of compiled points; they are made again where they are needed.
        return {**self.__dict__, "_sampler": None}

    def _trials(self) -> list[Trial]:
        """The records as our samplers see them."""
        longest = max((item.iteration or 0 for item in self._records.values()), default=0)
        trials = []
        for number, record in enumerate(self._records.values()):
            state = TrialState(record.state)
            if state is TrialState.COMPLETE and record.is_stopped and (record.iteration or 0) < longest:
                state = TrialState.PRUNED
            trials.append(
                foreign_trial(number, record.params, self._space, seed=self._seed, state=state, values=record.values)
            )
        return trials

    def _values(self, result: Mapping[str, Any]) -> dict[str, float] | None:
        """Reported values of the measured objectives; None if one is missing."""
        values: dict[str, float] = {}
        for item in self._objectives:
            if item.name == EXACT:
                continue
            if result.get(item.name) is None:
                logger.warning("A trial reported no %s: it teaches nothing.", item.name)
                return None
            values[item.name] = float(result[item.name])
        return values


def _objectives(metric: str | Sequence[str] | None, mode: str | Sequence[str] | None) -> tuple[Objective, ...]:
    """Tune's metric and mode as objectives; none if there is no metric yet."""
    if metric is None:
        return ()
    names, modes = ([item] if isinstance(item, str) else list(item or ()) for item in (metric, mode))
    unknown = [item for item in modes if item not in _MODES]
    if unknown or len(names) != len(modes):
        raise UsageError(f"every metric needs a mode, max or min, but got metric={metric!r} and mode={mode!r}.")
    return named_objectives(names, [_MODES[item] for item in modes])
