"""Multi-objective Bayesian optimisation: surrogates for what is measured, the closed form for what is known."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from autopeft.configuration import BoundSpace
from autopeft.objectives import Objective
from autopeft.samplers._base import Source, Suggestion
from autopeft.samplers._design import Design
from autopeft.samplers._encoding import Encoder
from autopeft.samplers._goal import Goal, make_goal
from autopeft.samplers._history import Evidence, History, Observation
from autopeft.samplers._local_search import maximize
from autopeft.samplers._points import Point, PointSource
from autopeft.samplers._surrogate import SurrogateError, reproducible
from autopeft.study import Fidelity, Trial

logger = logging.getLogger(__name__)

#: Search trials from the design before a surrogate decides.
N_INITIAL = 8
#: Measured observations without which no surrogate is fitted.
_MIN_OBSERVATIONS = 4


class BayesianSampler:
    """The default sampler.

    The first `N_INITIAL` search trials come from `Design`. From then on one Gaussian process per measured objective is
    fitted to all observations, baselines that are points of the space included, and the acquisition function of
    `make_goal` is maximised by local search over feasible configurations that are new. Exactly known costs are never
    modelled. Unfinished trials and the batch so far are believed to turn out as predicted. Failed and pruned trials
    count as `Evidence` says. When no surrogate can be fitted, the design goes on and the log says so.

    Args:
        space: What is searched.
        objectives: What is optimised.
        seed: Of the study.
        fidelity: Of the study's search trials.
    """

    def __init__(self, *, space: BoundSpace, objectives: tuple[Objective, ...], seed: int, fidelity: Fidelity) -> None:
        self._points = PointSource(space)
        self._encoder = Encoder(space)
        self._design = Design(self._points, seed=seed)
        self._objectives = objectives
        self._seed = seed
        self._fidelity = fidelity

    def ask(self, trials: Sequence[Trial], n: int) -> list[Suggestion]:
        history = History.of(trials, objectives=self._objectives, seed=self._seed, fidelity=self._fidelity)
        rng = history.generator(self._seed)
        taken = set(history.taken)
        chosen: list[Suggestion] = []
        with reproducible(int(rng.integers(2**31))):
            goal = self._goal(history) if history.n_search + n > N_INITIAL else None
            while len(chosen) < n:
                index = history.n_search + len(chosen)
                if goal is None or index < N_INITIAL:
                    source = Source.INITIAL if index < N_INITIAL else Source.SPACE_FILLING
                    point = self._design.propose(index, rng, taken)
                else:
                    source = Source.MODEL
                    point = maximize(goal.score, self._points, incumbents=self._incumbents(goal), rng=rng, taken=taken)
                if point is None:
                    break
                if goal is not None:
                    goal.believe([point])
                chosen.append(Suggestion(params=point.params, notes={"source": source.value}))
                taken.add(point.fingerprint)
        return chosen

    def _goal(self, history: History) -> Goal | None:
        """The acquisition function given all trials; None, with a word in the log, if there can be none."""
        inside = [item for item in history.observations if self._fits(item)]
        known = [item for item in inside if item.values is not None and self._encoder.can_encode(item.configuration)]
        pending = [item for item in inside if item.values is None and self._encoder.can_encode(item.configuration)]
        outside = [item for item in inside if item.evidence is Evidence.MEASURED and item not in known]
        n_measured = sum(item.evidence is Evidence.MEASURED for item in known)
        if n_measured < _MIN_OBSERVATIONS:
            logger.warning(
                "Only %d measured trials to learn from, %d are needed: proposing space-filling points.",
                n_measured,
                _MIN_OBSERVATIONS,
            )
            return None
        budget = self._points.space.budget
        try:
            goal = make_goal(
                self._encoder,
                self._objectives,
                known,
                outside,
                log_budget=math.inf if budget is None else math.log1p(budget) / math.log(10),
                seed=self._seed,
            )
        except SurrogateError as error:
            logger.warning("Proposing space-filling points: %s", error)
            return None
        if pending:
            goal.believe(pending)
        return goal

    def _incumbents(self, goal: Goal) -> list[Point]:
        """Points of the predicted front; baselines, which came from no point, are not among them."""
        points: list[Point | None] = []
        for item in goal.incumbents:
            if isinstance(item, Observation) and item.params is not None and self._points.space.contains(item.params):
                points.append(self._points.make(item.params))
            elif isinstance(item, Point):
                points.append(item)
        return [point for point in points if point is not None]

    def _fits(self, item: Observation) -> bool:
        """Whether a trial keeps the budget: what costs more has not reached anything that is searched for."""
        budget = self._points.space.budget
        return budget is None or item.trainable_parameters <= budget
