"""Constraints that no configuration keeps, told before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from autopeft.configuration import KNOWN_COSTS, BoundSpace, uniform_scores
from autopeft.objectives import EXPORT_CLASS, Constraint
from autopeft.samplers._points import PointSource


def contradiction(space: BoundSpace, constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    """The fewest constraints that no feasible point was found to keep together.

    Only known costs and the export class are looked at: what others ask for, only trials can tell. Scores that are not
    known yet are taken as equal. Points are looked for by draws and by descent, so that a space whose points keep the
    constraints in a corner far from all of these is called contradictory, too.

    Args:
        space: What is searched.
        constraints: At most one per name.

    Returns:
        One constraint, two, or more; empty if some point keeps all.
    """
    bounds = [item for item in constraints if item.name in KNOWN_COSTS or item.name == EXPORT_CLASS]
    unknown = set(space.space.score_sources) - (space.scores or {}).keys()
    if bounds and unknown:
        space = space.with_scores({**(space.scores or {}), **uniform_scores(unknown, space.shapes)})
    if not bounds or _is_kept(space, bounds):
        return ()
    for size in range(1, len(bounds)):
        for chosen in itertools.combinations(bounds, size):
            if not _is_kept(space, chosen):
                return chosen
    return tuple(bounds)


def _is_kept(space: BoundSpace, constraints: Sequence[Constraint]) -> bool:
    return PointSource(space, constraints=constraints).some(np.random.default_rng(0)) is not None
