"""A finite set of points as the whole world: searches among configurations that are listed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from autopeft.configuration import BoundSpace, OptionValue
from autopeft.exceptions import UsageError
from autopeft.objectives import Constraint
from autopeft.samplers._points import Point, PointSource
from autopeft.samplers._values import FEW


class CandidateSource(PointSource):
    """The listed points of a space, and no others.

    Draws are uniform over the list. Points have no neighbours: `pool` holds every candidate, so that whoever maximises
    something over it has seen all there is.

    Args:
        space: What is searched.
        candidates: Points of it; those that are infeasible, break a constraint or repeat a configuration are left out.
        constraints: As for `PointSource`.

    Raises:
        UsageError: If no candidate is left.
    """

    is_finite = True

    def __init__(
        self,
        space: BoundSpace,
        *,
        candidates: Sequence[Mapping[str, OptionValue]],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        super().__init__(space, constraints=constraints)
        made = [point for params in candidates if (point := super(CandidateSource, self).make(params)) is not None]
        self._members = {point.fingerprint: point for point in reversed(made)}
        if not self._members:
            raise UsageError(
                f"none of the {len(candidates)} candidates is feasible in search space {space.space.name} within its "
                "budget and constraints; list others, or relax these."
            )

    def make(self, params: Mapping[str, OptionValue]) -> Point | None:
        """The candidate with this point's configuration; None if there is none."""
        point = super().make(params)
        return None if point is None else self._members.get(point.fingerprint)

    def draw(self, rng: np.random.Generator, n: int, taken: Collection[str]) -> list[Point]:
        return self._left(rng, taken)[:n]

    def pool(self, rng: np.random.Generator, n: int, taken: Collection[str]) -> list[Point]:
        """Every candidate that is not taken, in random order, however few are asked for."""
        return self._left(rng, taken)

    def fresh(self, rng: np.random.Generator, n: int, taken: Collection[str]) -> list[Point]:
        return self._left(rng, taken)[:n]

    def count_out(self, rng: np.random.Generator) -> Iterator[Point]:
        yield from self._left(rng, ())

    def neighbours(
        self, point: Point, rng: np.random.Generator, *, few: int = FEW, without: Collection[str] = ()
    ) -> list[Point]:
        """None: `pool` holds every candidate."""
        return []

    def _left(self, rng: np.random.Generator, taken: Collection[str]) -> list[Point]:
        left = [point for fingerprint, point in self._members.items() if fingerprint not in taken]
        return [left[i] for i in rng.permutation(len(left))]


def point_source(
    space: BoundSpace, constraints: Sequence[Constraint], candidates: Sequence[Mapping[str, OptionValue]] | None
) -> PointSource:
    """Where a sampler gets its points from: the whole space, or the candidates where there are some."""
    if candidates is None:
        return PointSource(space, constraints=constraints)
    return CandidateSource(space, candidates=candidates, constraints=constraints)
