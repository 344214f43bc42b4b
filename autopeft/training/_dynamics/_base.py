"""What a dynamics is: one candidate's rule for which of its modules are updated at which step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from autopeft.configuration import DynamicsSpec, check_dynamics


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModule:
    """A candidate's tensors of one module at one site; all views, padded to the largest in the cohort.

    Args:
        key: Name of site and type, for example ``"layers.3.q.lora"``.
        layer: Layer index; None outside the layers.
        part: Part of the layer.
        size: Of the module; None for types without one.
        is_identity: Whether it changes nothing at its initial values.
        ranked: Names of the tensors whose first axis runs over the size.
        n_values: Trained numbers, padding left out.
        rows: Which leading rows of the optimizer's tensors these are.
        values: The tensors by name.
        gradients: Their gradients.
        initial: What the tensors were before training; empty unless the dynamics asks for it.
        frozen: Whether single numbers are frozen, to be set by the dynamics; empty unless it asks for it.
    """

    key: str
    layer: int | None
    part: str
    size: int | None
    is_identity: bool
    ranked: frozenset[str]
    n_values: int
    rows: tuple[int, ...]
    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor]


def fit(saved: Tensor, target: Tensor) -> None:
    """Copy a tensor into one of other padding: what both have is copied, the rest of the target is set to zero."""
    if saved.dim() != target.dim():
        raise ValueError(f"a tensor of {saved.dim()} axes does not fit one of {target.dim()}.")
    common = tuple(slice(0, min(sizes)) for sizes in zip(saved.shape, target.shape, strict=True))
    target.zero_()
    target[common] = saved[common].to(target.device)


class Dynamics:
    """One candidate's dynamics; a subclass states what is frozen. Heads and whatever is outside the layers never are.

    A frozen module keeps its values and its optimizer's moments at that step, and its gradient does not count in the
    candidate's gradient norm. Whatever is drawn depends on the candidate's seed and the step alone.

    Args:
        spec: Type and options.
        modules: The candidate's modules, bottom layer first.
        seed: The candidate's seed.
        n_steps: Steps of the training.
    """

    #: Whether `TrainedModule.initial` and `TrainedModule.frozen` are needed.
    keeps_initial = False

    def __init__(self, spec: DynamicsSpec, modules: Sequence[TrainedModule], *, seed: int, n_steps: int) -> None:
        self._kind = check_dynamics(spec)
        self._spec = spec
        self.modules = tuple(modules)
        self._seed = seed
        self.n_steps = n_steps
        #: Grows whenever `TrainedModule.frozen` has changed.
        self.revision = 0
        #: Layers with modules, ascending.
        self.layers = tuple(sorted({item.layer for item in modules if item.layer is not None}))

    def number(self, name: str) -> float:
        """An option's value, or its default."""
        return self._kind.number(self._spec, name)

    def rng(self, step: int, *stream: int) -> np.random.Generator:
        """The source of what is drawn at a step."""
        return np.random.default_rng(np.random.SeedSequence([self._seed, step, *stream]))

    def frozen(self, step: int) -> frozenset[str]:
        """Keys of the modules that a step does not update."""
        raise NotImplementedError

    def outside(self, layers: Sequence[int]) -> frozenset[str]:
        """Keys of the modules in all other layers."""
        chosen = set(layers)
        return frozenset(item.key for item in self.modules if item.layer is not None and item.layer not in chosen)

    def trials(self, step: int) -> Sequence[frozenset[str]]:
        """Sets of modules without whose learning the loss is wanted before a step; keys."""
        return ()

    def learn(self, step: int, losses: Sequence[float]) -> None:
        """Told the loss on the step's batch of every trial."""

    def before_update(self, step: int) -> None:
        """Called when the gradients of a step are complete, frozen ones perhaps missing."""

    def after_update(self, step: int) -> None:
        """Called when the step is done; may change values and `TrainedModule.frozen`."""

    def state(self) -> dict[str, Any]:
        """What the dynamics carries from one step to the next, and steps and seed alone do not tell.

        Returns:
            Tensors, numbers, strings, and lists or mappings of them; copies.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Carry on from what `state` told; tensors may be padded otherwise."""

    def statistics(self) -> Mapping[str, float]:
        """Finite numbers to record with the learning curve."""
        return {}
