"""Finding the point of a search space that compiles to a given configuration, or comes close."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autopeft.configuration import Configuration, DynamicsSpec, OptionValue, Placement
from autopeft.samplers._points import Point, PointSource

#: Uniform draws from which the descent starts, and how many of the best of them it starts from.
_N_DRAWS = 200
_N_STARTS = 3
#: One-exchange sweeps of one descent.
_MAX_SWEEPS = 12
#: Discrete parameters with at most this many values are tried at all of them.
_FEW = 64

Modules = Mapping[tuple[int | None, str, str], tuple[float, tuple[tuple[str, OptionValue], ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """How well a space can say a configuration.

    Args:
        point: The nearest point found, at the wanted learning rate if the space has it.
        error: `structure_distance` to what was wanted; 0 when the modules are the same.
    """

    point: Point
    error: float


def express(points: PointSource, wanted: Configuration, *, seed: int) -> Expression | None:
    """Search the space for a configuration, by one-exchange descent on the distance between modules.

    Args:
        points: The space.
        wanted: The configuration to say.
        seed: Of the descent; the answer depends on nothing else.

    Returns:
        The nearest point found; None if the space lacks a module type or nothing feasible was found.
    """
    space = points.space
    if not wanted.placements or not set(wanted.module_types) <= space.type_names:
        return None
    if space.budget is not None and space.parameter_count(wanted) > space.budget:
        return None
    # The same draws for whatever is wanted: compiled points are cached.
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    target = _modules(wanted)
    drawn = points.pool(rng, _N_DRAWS, ())
    # Switching a family on helps only once its size and parts are near: the starts have the wanted families already.
    missing = {
        point.fingerprint: len(set(wanted.module_types) - set(point.configuration.module_types)) for point in drawn
    }
    starts = sorted(drawn, key=lambda point: (missing[point.fingerprint], _distance(point, target)))[:_N_STARTS]
    best: Expression | None = None
    for start in starts:
        found = _descend(points, start, target, rng)
        if best is None or found.error < best.error:
            best = found
        if best.error == 0:
            break
    if best is None:
        return None
    return Expression(point=at_rate(points, best.point, wanted.learning_rate), error=best.error)


class Recognizer:
    """Finds the points behind configurations: of search trials, and of baselines that the space can say exactly.

    Args:
        points: The space.
        seed: Of the descents.
    """

    def __init__(self, points: PointSource, *, seed: int) -> None:
        self._points = points
        self._seed = seed
        self._found: dict[str, Point | None] = {}
        self._structures: dict[tuple[tuple[Placement, ...], DynamicsSpec | None], Expression | None] = {}

    def find(self, configuration: Configuration, params: Mapping[str, OptionValue] | None) -> Point | None:
        """The point that compiles to a configuration.

        Args:
            configuration: What was trained.
            params: Where it came from, if from a space.

        Returns:
            The point; None if the space has none, or none was found.
        """
        fingerprint = configuration.fingerprint
        if fingerprint not in self._found:
            self._found[fingerprint] = self._search(configuration, params)
        return self._found[fingerprint]

    def _search(self, configuration: Configuration, params: Mapping[str, OptionValue] | None) -> Point | None:
        candidates: list[Point | None] = []
        if params is not None and self._points.space.contains(params):
            candidates.append(self._points.make(params))
        else:
            # Baselines come at several learning rates; their modules are looked for once.
            structure = configuration.placements, configuration.dynamics
            if structure not in self._structures:
                self._structures[structure] = express(self._points, configuration, seed=self._seed)
            answer = self._structures[structure]
            if answer is not None and answer.error == 0:
                candidates.append(at_rate(self._points, answer.point, configuration.learning_rate))
        return next((item for item in candidates if item and item.configuration == configuration), None)


def structure_distance(left: Configuration, right: Configuration) -> float:
    """How much the modules and dynamics of two configurations differ, learning rates aside.

    The sum over (site, type) of |log2(1 + size) - log2(1 + size')|, absent modules having size 0 and modules without a
    size counting 1, plus one for every common module with other options; plus one if the dynamics differ.
    """
    return _module_distance(_modules(left), _modules(right))


def _descend(points: PointSource, start: Point, target: Modules, rng: np.random.Generator) -> Expression:
    best, error = start, _distance(start, target)
    for _ in range(_MAX_SWEEPS):
        if error == 0:
            break
        # The learning rate is set in the end, so its exchanges would only cost time.
        around = points.neighbours(best, rng, few=_FEW, without=_rate_names(points))
        nearest = min(around, key=lambda point: _distance(point, target), default=best)
        distance = _distance(nearest, target)
        if distance >= error:
            break
        best, error = nearest, distance
    return Expression(point=best, error=error)


def at_rate(points: PointSource, point: Point, learning_rate: float) -> Point:
    """The same point at another learning rate, or at the nearest one the space has."""
    for name in _rate_names(points):
        parameter = next(item for item in points.space.parameters if item.name == name)
        value = min(max(learning_rate, parameter.low or learning_rate), parameter.high or learning_rate)
        return points.make({**point.params, name: value}) or point
    return point


def _rate_names(points: PointSource) -> frozenset[str]:
    """The parameter that is the learning rate, if one is."""
    rate = points.space.space.learning_rate
    return frozenset() if isinstance(rate, float) else frozenset({rate})


def _distance(point: Point, target: Modules) -> float:
    return _module_distance(_modules(point.configuration), target)


def _modules(configuration: Configuration) -> Modules:
    """Log size and options of every module, by where it stands; and dynamics as if they were one."""
    found = {
        (item.site.layer, item.site.part, item.module.type): (
            math.log2(1 + (item.module.size or 1)),
            item.module.options,
        )
        for item in configuration.placements
    }
    if configuration.dynamics is not None:
        options: tuple[tuple[str, OptionValue], ...] = (
            ("", configuration.dynamics.type),
            *configuration.dynamics.options,
        )
        found[None, "", "dynamics"] = (1.0, options)
    return found


def _module_distance(left: Modules, right: Modules) -> float:
    absent = (0.0, ())
    total = 0.0
    for key in left.keys() | right.keys():
        total += abs(left.get(key, absent)[0] - right.get(key, absent)[0])
    return total + sum(left[key][1] != right[key][1] for key in left.keys() & right.keys())
