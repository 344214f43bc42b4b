"""Feasible points of a search space: compiled once, drawn, varied and counted out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autopeft.configuration import KNOWN_COSTS, BoundSpace, Configuration, OptionValue, export_class
from autopeft.exceptions import InfeasibleError
from autopeft.objectives import EXPORT_CLASS, Constraint
from autopeft.samplers._known import known_cost
from autopeft.samplers._rare import rare_points
from autopeft.samplers._values import FEW, exchanges, grid, random_value

Params = dict[str, OptionValue]

#: Draws in a row without a new feasible configuration before the space is gone through instead.
_MAX_MISSES = 1000
#: Draws after which any feasible point is looked for otherwise.
_FEW_DRAWS = 200
#: Points that are gone through: spaces of up to so many are counted out completely, others only so far.
_MAX_COUNTED = 10_000
#: Compiled points kept; more are forgotten all at once (they are only a cache).
_MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of the space that compiles within the budget.

    Args:
        params: Canonical params: active parameters only.
        configuration: What they compile to.
        trainable_parameters: Exact count of it.
        fingerprint: Its identity.
    """

    params: Mapping[str, OptionValue]
    configuration: Configuration
    trainable_parameters: int
    fingerprint: str


class PointSource:
    """Where samplers get feasible points from.

    Args:
        space: What is searched; its compiler decides what is feasible.
        constraints: Of the study. Those on known costs and on the export class decide, too; the others are ignored.
    """

    #: Whether `pool` holds everything there is.
    is_finite = False

    def __init__(self, space: BoundSpace, *, constraints: Sequence[Constraint] = ()) -> None:
        self.space = space
        self._constraints = [item for item in constraints if item.name in KNOWN_COSTS or item.name == EXPORT_CLASS]
        self._cache: dict[tuple[tuple[str, OptionValue], ...], Point | None] = {}

    def make(self, params: Mapping[str, OptionValue]) -> Point | None:
        """Compile a point.

        Args:
            params: Values of every active parameter; inactive ones are dropped.

        Returns:
            The point; None if it is infeasible.
        """
        return self._make(self.space.canonical(params))

    def draw(self, rng: np.random.Generator, n: int, taken: Collection[str]) -> list[Point]:
        """New feasible points from uniform draws, without a promise to find enough.

        Args:
            rng: Source of randomness.
            n: How many are wanted; at most four times as many draws are made.
            taken: Fingerprints that must not come back.

        Returns:
            At most n points with different configurations, in the order drawn.
        """
        found: dict[str, Point] = {}
        for _ in range(4 * n):
            if len(found) >= n:
                break
            point = self._make(self.space.draw(rng))
            if point is not None and point.fingerprint not in taken:
                found.setdefault(point.fingerprint, point)
        return list(found.values())

    def pool(self, rng: np.random.Generator, n: int, taken: Collection[str]) -> list[Point]:
        """Points among which something is maximised: draws, or everything that is left where that can be listed."""
        return self.draw(rng, n, taken)

    def fresh(self, rng: np.random.Generator, n: int, taken: Collection[str]) -> list[Point]:
        """New feasible points, uniformly drawn; where drawing no longer finds any, the space is counted out.

        Spaces of more than `_MAX_COUNTED` points are not: there feasible points are approached from infeasible ones
        (`rare_points`), and only so many points are counted.

        Args:
            rng: Source of randomness.
            n: How many are wanted.
            taken: Fingerprints that must not come back.

        Returns:
            n points with different configurations; fewer only when there are no more (continuous parameters count as
            grids for that purpose, see `grid`), or none were found in a space too large to count.
        """
        found: dict[str, Point] = {}
        misses = 0
        while len(found) < n and misses < _MAX_MISSES:
            point = self._make(self.space.draw(rng))
            if point is None or point.fingerprint in taken or point.fingerprint in found:
                misses += 1
            else:
                found[point.fingerprint] = point
                misses = 0
        if len(found) < n:
            for point in self._remaining(rng):
                if point.fingerprint not in taken:
                    found.setdefault(point.fingerprint, point)
                if len(found) >= n:
                    break
        return list(found.values())

    def some(self, rng: np.random.Generator) -> Point | None:
        """Any feasible point, found soon or not at all; None does not prove that a large space has none."""
        for _ in range(_FEW_DRAWS):
            point = self._make(self.space.draw(rng))
            if point is not None:
                return point
        return next(rare_points(self, self._constraints, rng) if self._is_large else self.count_out(rng), None)

    @cached_property
    def _is_large(self) -> bool:
        """Whether the space has more points than are counted."""
        return math.prod(len(grid(item)) for item in self.space.parameters) > _MAX_COUNTED

    def _remaining(self, rng: np.random.Generator) -> Iterator[Point]:
        """Feasible points where uniform draws find none."""
        if self._is_large:
            yield from rare_points(self, self._constraints, rng)
        yield from self.count_out(rng)

    def count_out(self, rng: np.random.Generator) -> Iterator[Point]:
        """Every feasible point, continuous parameters on a grid; one configuration may come more than once.

        Of spaces with more than `_MAX_COUNTED` points only the feasible ones among so many.

        Args:
            rng: Shuffles the values of each parameter, so that the first points are no special ones.
        """
        values = {
            item.name: [grid(item)[i] for i in rng.permutation(len(grid(item)))] for item in self.space.parameters
        }
        for params in itertools.islice(self._assignments({}, values), _MAX_COUNTED):
            point = self._compile(params)
            if point is not None:
                yield point

    def neighbours(
        self, point: Point, rng: np.random.Generator, *, few: int = FEW, without: Collection[str] = ()
    ) -> list[Point]:
        """Feasible points that differ in one parameter; parameters that become active get a random value.

        Args:
            point: Where to look around.
            rng: Chooses the steps along numbers with many values, and the values of parameters that become active.
            few: Discrete parameters with at most this many other values are exchanged for each of them.
            without: Names of parameters that keep their values.

        Returns:
            Points with other configurations than the given one, and different among themselves.
        """
        found: dict[str, Point] = {}
        for parameter in self.space.parameters:
            if parameter.name not in point.params or parameter.name in without:
                continue
            for value in exchanges(parameter, point.params[parameter.name], rng, few=few):
                other = self._make(self.complete({**point.params, parameter.name: value}, rng))
                if other is not None and other.fingerprint != point.fingerprint:
                    found.setdefault(other.fingerprint, other)
        return list(found.values())

    def complete(self, params: Mapping[str, OptionValue], rng: np.random.Generator) -> Params:
        """Give every active parameter without a value a random one, and drop inactive ones."""
        filled = dict(params)
        while True:
            active = set(self.space.active(filled))
            missing = [item for item in self.space.parameters if item.name in active - filled.keys()]
            if not missing:
                return dict(self.space.canonical(filled))
            filled |= {item.name: random_value(item, rng) for item in missing}

    def _make(self, canonical: Params) -> Point | None:
        key = tuple(canonical.items())
        if key not in self._cache:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[key] = self._compile(canonical)
        return self._cache[key]

    def _compile(self, params: Mapping[str, OptionValue]) -> Point | None:
        try:
            configuration = self.space.compile(params)
        except InfeasibleError:
            return None
        point = Point(
            params=dict(params),
            configuration=configuration,
            trainable_parameters=self.space.parameter_count(configuration),
            fingerprint=configuration.fingerprint,
        )
        return point if all(self._keeps(point, item) for item in self._constraints) else None

    def _keeps(self, point: Point, constraint: Constraint) -> bool:
        if constraint.name == EXPORT_CLASS:
            return self._export_classes(point.configuration) <= set(constraint.allowed)
        return constraint.allows(known_cost(constraint.name, point, self.space))

    def _export_classes(self, configuration: Configuration) -> set[str]:
        return {export_class(name, self.space.module_types) for name in configuration.module_types}

    def _assignments(self, params: Params, values: Mapping[str, list[OptionValue]]) -> Iterator[Params]:
        """Every complete assignment that extends this one, depth first."""
        missing = next((name for name in self.space.active(params) if name not in params), None)
        if missing is None:
            yield params
            return
        for value in values[missing]:
            yield from self._assignments({**params, missing: value}, values)
