"""Whether every module family of a space stands in some legal point: what else would only show when a search begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from autopeft.configuration._bound import BoundSpace
from autopeft.configuration._reachable import SAMPLE_BACKBONES
from autopeft.configuration._scores import uniform_scores
from autopeft.configuration._shapes import ModuleTypes
from autopeft.configuration._space import ModuleRule, SearchSpace

_N_LAYERS = 6
#: Random points that may show quickly that a family is legal; whether it is not is never left to them.
_N_DRAWS = 8


def illegal_rules(space: SearchSpace, module_types: ModuleTypes) -> Iterator[tuple[ModuleRule, str]]:
    """Module families that no legal point has, with the reason.

    Each family is switched on and the rest of the point searched as for the smallest configuration, on backbones of
    very different widths: what all of them refuse is a mistake of the space.

    Args:
        space: As it is declared.
        module_types: `autopeft.modules.MODULES`.
    """
    reasons: dict[str, str] = {}
    open_rules = {rule.name: rule for rule in space.modules}
    for shapes in SAMPLE_BACKBONES:
        deep = replace(shapes, layers=shapes.layers * _N_LAYERS)
        scores = uniform_scores(space.score_sources, deep)
        bound = BoundSpace(space=space, shapes=deep, module_types=module_types, scores=scores)
        for name in _drawn(bound) & open_rules.keys():
            del open_rules[name]
        for name, rule in list(open_rules.items()):
            reason = bound.why_never(rule)
            if reason is None:
                del open_rules[name]
            else:
                reasons.setdefault(name, reason)
        if not open_rules:
            return
    yield from ((rule, reasons[name]) for name, rule in open_rules.items())


def _drawn(bound: BoundSpace) -> set[str]:
    """Names of families in a few random legal points."""
    rng = np.random.default_rng(0)
    points = [bound.draw(rng) for _ in range(_N_DRAWS)]
    return {name for point in points if bound.is_feasible(point) for name in bound.rules_of(point)}
