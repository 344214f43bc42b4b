"""Modules that take part in training beyond their forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from autopeft.modules._stack import Stack

#: Decay rates of AdamW's first and second moment; its bias correction counts from the first step of the training.
ADAM_BETAS = (0.9, 0.999)


class Moments(Protocol):
    """The optimizer's memory of the trained tensors."""

    def moments(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """First and second moment of a trained tensor, in its shape, to be changed in place."""


class Listener:
    """What a module type may do during training; every method does nothing by default.

    A step consists of one or more forward and backward passes (micro-batches) and one update. Whatever a listener does
    for a candidate must not depend on that candidate's companions.

    Args:
        stack: The tensors it belongs to; its owners are the candidates concerned.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def begin_training(self, n_steps: int) -> None:
        """Called once, before the first step of so many."""

    def shortfalls(self, n_steps: int) -> set[str]:
        """What so few steps leave undone that the modules' options ask for, each with the way out; empty if nothing.

        The sentences do not say where the module stands: equal ones are told once.
        """
        return set()

    def penalty(self) -> Tensor | None:
        """A term that is added to the active owners' losses, of the last forward pass, shape (k,); None for none."""
        return None

    def before_update(self, step: int, moments: Moments) -> None:
        """Called when the gradients of a step are complete and not yet clipped; may change them."""

    def after_update(self, step: int, moments: Moments) -> None:
        """Called when the tensors have been updated."""

    def training_state(self, candidate: int) -> dict[str, Any]:
        """What one owner's module remembers from step to step; statistics are not among it.

        Returns:
            Tensors, numbers and None by name; copies.
        """
        return {}

    def load_training_state(self, candidate: int, state: Mapping[str, Any]) -> None:
        """Set what `training_state` tells; called after `begin_training`."""

    def statistics(self, candidate: int) -> Mapping[str, float]:
        """Finite numbers about one owner since the last call of `begin_statistics`, by short lower-case names."""
        return {}

    def begin_statistics(self) -> None:
        """Forget what has been counted so far."""
