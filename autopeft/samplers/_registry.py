"""The samplers by name."""

from __future__ import annotations

from typing import Protocol

from autopeft.configuration import BoundSpace
from autopeft.exceptions import UnknownNameError
from autopeft.objectives import Objective
from autopeft.samplers._base import Sampler
from autopeft.samplers._optuna import OptunaSampler
from autopeft.samplers._random import RandomSampler
from autopeft.study import Fidelity


class SamplerFactory(Protocol):
    """Builds a sampler for one study."""

    def __call__(
        self, *, space: BoundSpace, objectives: tuple[Objective, ...], seed: int, fidelity: Fidelity
    ) -> Sampler: ...


def _bayesian(*, space: BoundSpace, objectives: tuple[Objective, ...], seed: int, fidelity: Fidelity) -> Sampler:
    # BoTorch takes seconds to import; only this sampler needs it.
    from autopeft.samplers._bayesian import BayesianSampler

    return BayesianSampler(space=space, objectives=objectives, seed=seed, fidelity=fidelity)


def _tpe(*, space: BoundSpace, objectives: tuple[Objective, ...], seed: int, fidelity: Fidelity) -> Sampler:
    return OptunaSampler("tpe", space=space, objectives=objectives, seed=seed, fidelity=fidelity)


def _nsga2(*, space: BoundSpace, objectives: tuple[Objective, ...], seed: int, fidelity: Fidelity) -> Sampler:
    return OptunaSampler("nsga2", space=space, objectives=objectives, seed=seed, fidelity=fidelity)


#: Every sampler by the name the user types; `bayesian` is the default of a search.
SAMPLERS: dict[str, SamplerFactory] = {
    "bayesian": _bayesian,
    "nsga2": _nsga2,
    "random": RandomSampler,
    "tpe": _tpe,
}


def make_sampler(
    name: str, *, space: BoundSpace, objectives: tuple[Objective, ...], seed: int, fidelity: Fidelity
) -> Sampler:
    """Build a sampler.

    Args:
        name: Key of `SAMPLERS`.
        space: What is searched, bound to a backbone and a budget.
        objectives: What is optimised.
        seed: Of the study and of its search trials.
        fidelity: Of the study's search trials; trials at another fidelity are ignored.

    Raises:
        UnknownNameError: If there is no sampler of that name.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    return SAMPLERS[name](space=space, objectives=objectives, seed=seed, fidelity=fidelity)
