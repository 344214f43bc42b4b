"""What earlier studies say about a search: points to begin with, and models to start its surrogates from."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from autopeft.objectives import Direction, Objective, hypervolume, non_dominated_mask
from autopeft.samplers._earlier import EarlierStudy
from autopeft.samplers._encoding import Encoder
from autopeft.samplers._express import express
from autopeft.samplers._goal import FitSurrogate
from autopeft.samplers._points import Point, PointSource
from autopeft.samplers._reference import cheapest_that_counts
from autopeft.samplers._surrogate import Surrogate
from autopeft.samplers._transfer import SourceModel, TransferSurrogate
from autopeft.samplers._translate import MIN_EARLIER_TRIALS, Here, bring_here

Array = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

#: Points to begin with that are prepared; more would leave too little to what is new in this search.
_N_SEEDS = 4
#: An earlier configuration is used if the space misses at most this share of its summed log sizes.
_TOLERANCE = 0.25
#: Share of an earlier study's trials that count as no better than nothing when its front is thinned out.
_POOR = 0.25


class Knowledge:
    """Earlier studies, read for one search. Models are fitted and points expressed once, when they are first needed.

    Args:
        earlier: The studies; those that say too little in this space are left out.
        points: What is searched.
        measured: Objectives of the search that are measured, in their order.
        seed: Of the study.
    """

    def __init__(
        self, earlier: Sequence[EarlierStudy], points: PointSource, measured: Sequence[Objective], *, seed: int
    ) -> None:
        self._points = points
        self._measured = tuple(measured)
        self._seed = seed
        self._encoder = Encoder(points.space)
        brought = [(study, bring_here(study, points.space)) for study in earlier] if measured else []
        self._studies = [(study, trials) for study, trials in brought if len(trials) >= MIN_EARLIER_TRIALS]
        self._models: list[list[SourceModel]] | None = None
        self._seeds: tuple[tuple[Point, str], ...] | None = None

    @property
    def has_sources(self) -> bool:
        """Whether there is anything to learn from."""
        return bool(self._studies)

    def fits(self, fit: FitSurrogate) -> list[FitSurrogate]:
        """How each measured objective's surrogate is fitted: by `fit`, then shifted by what the sources predict."""
        if not self.has_sources:
            return []
        return [self._fitter(fit, models) for models in self._source_models()]

    def seed(self, taken: Collection[str]) -> tuple[Point, str] | None:
        """The next point to begin with, and the study it was good in; None if there is none left.

        Args:
            taken: Fingerprints that must not come back.
        """
        if self._seeds is None:
            self._seeds = tuple(self._find_seeds()) if self.has_sources else ()
        return next((item for item in self._seeds if item[0].fingerprint not in taken), None)

    def _fitter(self, fit: FitSurrogate, models: Sequence[SourceModel]) -> FitSurrogate:
        def fit_shifted(x: Array, y: Array, noise_sd: Array) -> Surrogate:
            return TransferSurrogate.fit(fit(x, y, noise_sd), models, seed=self._seed)

        return fit_shifted

    def _source_models(self) -> list[list[SourceModel]]:
        """For each measured objective, a model of each study that measured its like."""
        if self._models is None:
            self._models = [
                [
                    model
                    for study, trials in self._studies
                    if (model := self._model(study, trials, position)) is not None
                ]
                for position in range(len(self._measured))
            ]
        return self._models

    def _model(self, study: EarlierStudy, trials: Sequence[Here], position: int) -> SourceModel | None:
        """Its model of an objective here: of that name, or of the quality, whatever the task calls it."""
        wanted = self._measured[position]
        same = [item for item in study.objectives if item.name == wanted.name and item.direction is wanted.direction]
        theirs = same[0] if same else study.objectives[0] if position == 0 else None
        if theirs is None:
            return None
        known = [item for item in trials if theirs.name in item.origin.values]
        sign = 1.0 if theirs.direction is Direction.MAXIMIZE else -1.0
        y = np.array([sign * item.origin.values[theirs.name] for item in known])
        return SourceModel.fit(study.name, self._encoder.encode(known), y)

    def _find_seeds(self) -> list[tuple[Point, str]]:
        """Members of the studies' fronts that together promise most, as points of this space, the best first."""
        offered = [(item, study.name) for study, trials in self._studies for item in self._front(study, trials)]
        models = self._source_models()[0]
        if not models or not offered:
            return []
        x = self._encoder.encode([item for item, _ in offered])
        promise = np.mean([model.predict(x)[0] for model in models], axis=0)
        everything = self._encoder.encode([item for _, trials in self._studies for item in trials])
        poor = np.quantile(np.mean([model.predict(everything)[0] for model in models], axis=0), _POOR)
        saved = np.array([self._saved(item) for item, _ in offered])
        seeds: dict[str, tuple[Point, str]] = {}
        for i in _by_gain(np.maximum(promise - poor, 1e-6), saved):
            point = self._express(offered[i][0])
            if point is not None:
                seeds.setdefault(point.fingerprint, (point, offered[i][1]))
            if len(seeds) == _N_SEEDS:
                break
        return list(seeds.values())

    def _front(self, study: EarlierStudy, trials: Sequence[Here]) -> list[Here]:
        """What no other trial of the study beats in quality and cost, by what was measured."""
        first = study.objectives[0]
        sign = 1.0 if first.direction is Direction.MAXIMIZE else -1.0
        rows = [(sign * item.origin.values[first.name], -float(item.trainable_parameters)) for item in trials]
        return [item for item, is_member in zip(trials, non_dominated_mask(rows), strict=True) if is_member]

    def _saved(self, item: Here) -> float:
        """Decades of parameters below the budget, as far as they count."""
        budget = self._points.space.budget
        log_budget = math.log10(1 + (budget if budget is not None else self._points.space.shapes.parameters))
        cost = max(math.log10(1 + item.trainable_parameters), -cheapest_that_counts(log_budget))
        return max(log_budget - cost, 0.0) + 0.05

    def _express(self, item: Here) -> Point | None:
        """The point of this space that is an earlier configuration, or comes near."""
        params = item.origin.params
        if params is not None and self._points.space.contains(params):
            point = self._points.make(params)
            if point is not None and point.configuration == item.configuration:
                return point
        answer = express(self._points, item.configuration, seed=self._seed)
        size = sum(math.log2(1 + (placed.module.size or 1)) for placed in item.configuration.placements)
        if answer is None or (answer.error > _TOLERANCE * size and not self._points.is_finite):
            logger.info("A good configuration of an earlier study cannot be said in this space.")
            return None
        return answer.point


def transfer_weights(measured: Sequence[Objective], surrogates: Sequence[Surrogate]) -> dict[str, dict[str, float]]:
    """How far each surrogate leans on which study, JSON-ready, by objective; those that lean on none are absent."""
    return {
        objective.name: dict(model.weights)
        for objective, model in zip(measured, surrogates, strict=False)
        if isinstance(model, TransferSurrogate)
    }


def _by_gain(values: Array, saved: Array) -> list[int]:
    """Positions in the order in which each adds most to the volume of those before it."""
    rows = list(zip(values.tolist(), saved.tolist(), strict=True))
    order: list[int] = []
    while len(order) < len(rows):
        before = [rows[i] for i in order]
        gains = [-1.0 if i in order else hypervolume([*before, row], (0.0, 0.0)) for i, row in enumerate(rows)]
        order.append(int(np.argmax(gains)))
    return order
