"""The pruners by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from autopeft.exceptions import UnknownNameError
from autopeft.objectives import Constraint, Objective
from autopeft.pruners._base import Pruner
from autopeft.pruners._policy import CautiousPruner, NoPruner
from autopeft.pruners._rules import MedianRule, MoAshaRule, ParetoRule, Rule
from autopeft.pruners._values import KnownCost, measured_cost
from autopeft.study import Fidelity

#: Builds the pruner of one study from what `make_pruner` is given.
PrunerFactory = Callable[..., Pruner]


def _none(**_: Any) -> Pruner:
    return NoPruner()


def _cautious(name: str, rule: Callable[[], Rule], **study: Any) -> Pruner:
    return CautiousPruner(name=name, rule=rule(), **study)


#: Every pruner by the name the user types.
PRUNERS: dict[str, PrunerFactory] = {
    "none": _none,
    "pareto": partial(_cautious, "pareto", ParetoRule),
    "median": partial(_cautious, "median", MedianRule),
    "mo_asha": partial(_cautious, "mo_asha", MoAshaRule),
}


def make_pruner(
    name: str,
    *,
    objectives: Sequence[Objective],
    fidelity: Fidelity,
    rungs: Sequence[int],
    constraints: Sequence[Constraint] = (),
    known: KnownCost = measured_cost,
) -> Pruner:
    """Build a pruner.

    Args:
        name: Key of `PRUNERS`.
        objectives: Of the study.
        fidelity: Of its search trials.
        rungs: Steps before the run's end, ascending.
        constraints: Of the study; a trial that breaks one is nobody's rival.
        known: Tells costs that are known before training; by default those that the trials themselves tell.

    Raises:
        UnknownNameError: If there is no pruner of that name.
    """
    if name not in PRUNERS:
        raise UnknownNameError("pruner", name, PRUNERS)
    return PRUNERS[name](
        objectives=tuple(objectives),
        fidelity=fidelity,
        rungs=tuple(rungs),
        constraints=tuple(constraints),
        known=known,
    )
