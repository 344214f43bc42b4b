"""Feasible points where uniform draws hardly meet any: down what a point violates, from neighbour to neighbour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from autopeft.configuration import KNOWN_COSTS, BoundSpace, Configuration, OptionValue, export_class
from autopeft.exceptions import AutoPeftError, InfeasibleError
from autopeft.objectives import EXPORT_CLASS, Constraint
from autopeft.samplers._values import exchanges

if TYPE_CHECKING:
    from autopeft.samplers._points import Point, PointSource

#: Descents start from so many draws for each bound, chosen of so many; and where the space knows a feasible point.
_N_STARTS = 3
_N_DRAWS = 200
#: Steps of one descent, each to a neighbour that violates less.
_MAX_STEPS = 200
#: Feasible points whose neighbours are looked at for further ones.
_MAX_EXPANDED = 60


class Violation:
    """How far a point is from what the budget and constraints on known costs allow.

    Args:
        space: What is searched.
        constraints: On known costs and on the export class.
    """

    def __init__(self, space: BoundSpace, constraints: Sequence[Constraint]) -> None:
        self._space = space
        self._constraints = constraints

    @cached_property
    def _unlimited(self) -> BoundSpace:
        return replace(self._space, budget=None)

    def of(self, params: Mapping[str, OptionValue]) -> float:
        """Sum of `parts`: 0 for feasible points, inf where there is no configuration at all.

        Args:
            params: Canonical params.
        """
        return sum(self.parts(params))

    def parts(self, params: Mapping[str, OptionValue]) -> tuple[float, ...]:
        """What is violated of the budget and of each constraint, in this order.

        Natural logarithm of the ratio of a cost and its bound; share of the modules that cannot be exported as asked.
        """
        try:
            try:
                configuration, excess = self._space.compile(params), 0.0
            except InfeasibleError:
                configuration = self._unlimited.compile(params)
                count = self._space.parameter_count(configuration)
                excess = max(math.log1p(count) - math.log1p(self._space.budget or count), 1e-9)
        except InfeasibleError:
            return (math.inf,) * (1 + len(self._constraints))
        return (excess, *(self._beyond(configuration, item) for item in self._constraints))

    def _beyond(self, configuration: Configuration, constraint: Constraint) -> float:
        kinds = self._space.module_types
        if constraint.name == EXPORT_CLASS:
            wrong = [
                export_class(item.module.type, kinds) not in constraint.allowed for item in configuration.placements
            ]
            return sum(wrong) / len(wrong)
        value = KNOWN_COSTS[constraint.name](configuration, self._space.shapes, kinds)
        if constraint.allows(value):
            return 0.0
        bound = constraint.upper if constraint.upper is not None and value > constraint.upper else constraint.lower
        # What violates a bound is never 0, even next to it or where the bound is below every cost.
        return max(abs(math.log1p(value) - math.log1p(max(bound or 0.0, 0.0))), 1e-9)


def rare_points(points: PointSource, constraints: Sequence[Constraint], rng: np.random.Generator) -> Iterator[Point]:
    """Feasible points found by descending the violation, then their feasible neighbours and those of these.

    Args:
        points: The space.
        constraints: Those on known costs and on the export class.
        rng: Chooses starts and steps.

    Yields:
        Different configurations. That none come does not prove that there are none.
    """
    violation = Violation(points.space, constraints)
    seen: set[str] = set()
    for start in _starts(points.space, violation, rng):
        params = _descend(points, violation, start, rng)
        point = None if params is None else points.make(params)
        around = [] if point is None else [point]
        expanded = 0
        while around and expanded < _MAX_EXPANDED:
            point = around.pop(int(rng.integers(len(around))))
            if point.fingerprint in seen:
                continue
            seen.add(point.fingerprint)
            yield point
            around += points.neighbours(point, rng)
            expanded += 1


def _starts(space: BoundSpace, violation: Violation, rng: np.random.Generator) -> Iterator[Mapping[str, OptionValue]]:
    """For each bound the draws that violate it least, of equals those that violate the others least.

    Where one bound is kept at the cost of another, there is a start on either side.
    """
    drawn = [(violation.parts(params), params) for params in (space.draw(rng) for _ in range(_N_DRAWS))]
    for i in range(len(drawn[0][0])):
        for _, params in sorted(drawn, key=lambda item: (item[0][i], sum(item[0])))[:_N_STARTS]:
            yield params
    try:
        yield space.sample(rng)
    except AutoPeftError:  # not even the smallest configuration keeps the budget
        return


def _descend(
    points: PointSource, violation: Violation, start: Mapping[str, OptionValue], rng: np.random.Generator
) -> Mapping[str, OptionValue] | None:
    """Step to the first neighbour that violates less until nothing is violated; None if no neighbour does."""
    params, value = start, violation.of(start)
    for _ in range(_MAX_STEPS):
        if value == 0:
            return params
        for other in _exchanged(points, params, rng):
            found = violation.of(other)
            if found < value:
                params, value = other, found
                break
        else:
            return None
    return params if value == 0 else None


def _exchanged(
    points: PointSource, params: Mapping[str, OptionValue], rng: np.random.Generator
) -> Iterator[Mapping[str, OptionValue]]:
    """Points that differ in one parameter, feasible or not, in random order."""
    active = [item for item in points.space.parameters if item.name in params]
    moves = [(item.name, value) for item in active for value in exchanges(item, params[item.name], rng)]
    for i in rng.permutation(len(moves)):
        name, value = moves[int(i)]
        yield points.complete({**params, name: value}, rng)
