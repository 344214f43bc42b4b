"""The pruners by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from autopeft.exceptions import UnknownNameError
from autopeft.objectives import Objective
from autopeft.pruners._base import Pruner
from autopeft.pruners._policy import CautiousPruner, NoPruner
from autopeft.pruners._rules import MedianRule, MoAshaRule, ParetoRule, Rule
from autopeft.study import Fidelity


class PrunerFactory(Protocol):
    """Builds a pruner for one study."""

    def __call__(self, *, objectives: tuple[Objective, ...], fidelity: Fidelity, rungs: tuple[int, ...]) -> Pruner: ...


def _none(*, objectives: tuple[Objective, ...], fidelity: Fidelity, rungs: tuple[int, ...]) -> Pruner:
    return NoPruner()


def _cautious(
    name: str,
    rule: Callable[[], Rule],
    *,
    objectives: tuple[Objective, ...],
    fidelity: Fidelity,
    rungs: tuple[int, ...],
) -> Pruner:
    return CautiousPruner(name=name, rule=rule(), objectives=objectives, fidelity=fidelity, rungs=rungs)


#: Every pruner by the name the user types.
PRUNERS: dict[str, PrunerFactory] = {
    "none": _none,
    "pareto": partial(_cautious, "pareto", ParetoRule),
    "median": partial(_cautious, "median", MedianRule),
    "mo_asha": partial(_cautious, "mo_asha", MoAshaRule),
}


def make_pruner(name: str, *, objectives: Sequence[Objective], fidelity: Fidelity, rungs: Sequence[int]) -> Pruner:
    """Build a pruner.

    Args:
        name: Key of `PRUNERS`.
        objectives: Of the study.
        fidelity: Of its search trials.
        rungs: Steps before the run's end, ascending.

    Raises:
        UnknownNameError: If there is no pruner of that name.
    """
    if name not in PRUNERS:
        raise UnknownNameError("pruner", name, PRUNERS)
    return PRUNERS[name](objectives=tuple(objectives), fidelity=fidelity, rungs=tuple(rungs))
