"""The samplers by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from autopeft.configuration import BoundSpace, OptionValue
from autopeft.exceptions import MachineError, UnknownNameError, UsageError
from autopeft.objectives import Constraint, Objective
from autopeft.samplers._base import Sampler
from autopeft.samplers._earlier import EarlierStudy
from autopeft.samplers._optuna import OptunaSampler
from autopeft.samplers._random import RandomSampler
from autopeft.study import Fidelity

#: Samplers that learn from earlier studies.
WARM_SAMPLERS = frozenset({"bayesian"})
#: The volume of improvements grows out of hand with more.
MAX_OBJECTIVES = 4


class SamplerFactory(Protocol):
    """Builds a sampler for one study."""

    def __call__(
        self,
        *,
        space: BoundSpace,
        objectives: tuple[Objective, ...],
        seed: int,
        fidelity: Fidelity,
        constraints: tuple[Constraint, ...] = (),
        candidates: Sequence[Mapping[str, OptionValue]] | None = None,
    ) -> Sampler: ...


def _bayesian(**study: Any) -> Sampler:
    # BoTorch takes seconds to import; only this sampler needs it.
    from autopeft.samplers._bayesian import BayesianSampler

    return BayesianSampler(**study)


def _saas(**study: Any) -> Sampler:
    require_sampler("saas")
    from autopeft.samplers._saas import SaasFit

    return _bayesian(**study, fit=SaasFit(study["seed"]))


#: Every sampler by the name the user types; `bayesian` is the default of a search.
SAMPLERS: dict[str, SamplerFactory] = {
    "bayesian": _bayesian,
    "nsga2": functools.partial(OptunaSampler, "nsga2"),
    "random": RandomSampler,
    "saas": _saas,
    "tpe": functools.partial(OptunaSampler, "tpe"),
}


def require_sampler(name: str) -> None:
    """Refuse a sampler that does not exist or lacks its packages, before anything is loaded for it.

    Raises:
        UnknownNameError: If there is no sampler of that name.
        MachineError: If packages are missing; the message says how to install them.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    missing = [item for item in ("jax", "numpyro") if name == "saas" and find_spec(item) is None]
    if missing:
        raise MachineError(
            f"sampler saas needs {' and '.join(missing)}; install them: pip install 'autopeft[saas]'. "
            "Sampler bayesian needs neither."
        )


def make_sampler(
    name: str,
    *,
    space: BoundSpace,
    objectives: tuple[Objective, ...],
    seed: int,
    fidelity: Fidelity,
    constraints: tuple[Constraint, ...] = (),
    candidates: Sequence[Mapping[str, OptionValue]] | None = None,
    earlier: Sequence[EarlierStudy] = (),
) -> Sampler:
    """Build a sampler.

    Args:
        name: Key of `SAMPLERS`.
        space: What is searched, bound to a backbone and a budget.
        objectives: What is optimised.
        seed: Of the study and of its search trials.
        fidelity: Of the study's search trials; trials at another fidelity are ignored.
        constraints: What every proposal must keep as far as it can be known before training.
        candidates: The only points that may be proposed, where they have been listed; None for all of the space.
        earlier: Earlier studies to learn from; samplers that are not in `WARM_SAMPLERS` ignore them.

    Raises:
        UnknownNameError: If there is no sampler of that name.
        MachineError: If its packages are missing.
        UsageError: If there are more objectives than `MAX_OBJECTIVES`.
    """
    require_sampler(name)
    if not 1 <= len(objectives) <= MAX_OBJECTIVES:
        names = ", ".join(item.name for item in objectives) or "none"
        raise UsageError(
            f"a search optimizes 1 to {MAX_OBJECTIVES} objectives, but got {len(objectives)} ({names}); "
            f"bound some of them with --constraint instead."
        )
    further = {"earlier": tuple(earlier)} if earlier and name in WARM_SAMPLERS else {}
    return SAMPLERS[name](
        space=space,
        objectives=objectives,
        seed=seed,
        fidelity=fidelity,
        constraints=constraints,
        candidates=candidates,
        **further,
    )
