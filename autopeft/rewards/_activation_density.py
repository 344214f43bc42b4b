"""How many neurons of the feed-forward blocks are active."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autopeft.exceptions import RewardError, UsageError
from autopeft.rewards._base import BuiltinReward, RewardValue
from autopeft.rewards._batches import forward_batches
from autopeft.training import TrainedCandidate

#: Nonlinearities that give exact zeros.
_EXACT = frozenset({"relu", "relu2", "relu6"})


@dataclass(frozen=True, kw_only=True)
class ActivationDensity(BuiltinReward):
    r"""Share of the activations after the feed-forward nonlinearity that are not zero, over layers and tokens.

    With ReLU that is :math:`a \ne 0`. GELU and SiLU are almost never exactly zero: there an activation counts where
    :math:`|a|` exceeds a threshold. Read at the input of each layer's down projection (in gated blocks, the product of
    both branches), padding left out.

    Args:
        threshold: For nonlinearities without exact zeros, >= 0; ours, the paper trains a smooth stand-in.
        max_texts: The first so many texts of the split are read, >= 1.
    """

    threshold: float = 0.1
    max_texts: int = 256

    name: ClassVar[str] = "activation_density"
    summary: ClassVar[str] = "share of feed-forward activations that are not zero (GELU and SiLU: above 0.1 in size)"
    source: ClassVar[str] = "DEFT: Runwal et al., arXiv 2402.01911"
    cost: ClassVar[str] = "one pass over up to 256 texts"

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise UsageError(f"activation_density.threshold must be at least 0, but got {self.threshold:g}.")
        if self.max_texts < 1:
            raise UsageError(f"activation_density.max_texts must be at least 1, but got {self.max_texts}.")

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Count active neurons of every layer."""
        backbone = candidate.backbone
        config = backbone.model.config
        words = (getattr(config, name, None) for name in ("hidden_act", "hidden_activation", "activation_function"))
        activation = next((word for word in (*words, getattr(config, "activation", None)) if isinstance(word, str)), "")
        threshold = 0.0 if activation in _EXACT else self.threshold
        counters = {}
        for layer in range(backbone.shapes.n_layers):
            down = backbone.linear(layer, "down")
            if down is None:
                raise RewardError(self.name, f"layer {layer} has no down projection whose input could be read.")
            counters[layer] = _Counter(down.module, threshold)
        rows = np.arange(min(self.max_texts, len(candidate.data.texts)))
        with candidate.installed():
            for inputs, run in forward_batches(candidate, rows):
                with _listening(list(counters.values()), inputs.attention_mask):
                    run()
        shares = [item.active / item.seen for item in counters.values()]
        return RewardValue(
            value=sum(item.active for item in counters.values()) / sum(item.seen for item in counters.values()),
            details={f"layer_{layer}": share for layer, share in enumerate(shares)},
        )


class _Counter:
    """Counts active neurons at the input of a linear map."""

    def __init__(self, module: nn.Module, threshold: float) -> None:
        self._module = module
        self._threshold = threshold
        self._mask: Tensor | None = None
        self.active = 0
        self.seen = 0

    def listen(self, mask: Tensor) -> Any:
        """Begin to count in batches of this mask; the handle ends it."""
        self._mask = mask.bool()
        return self._module.register_forward_pre_hook(self._before)

    def _before(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        if self._mask is None:
            return
        # Virtual tokens come before the text.
        x: Tensor = args[0][..., -self._mask.shape[1] :, :].reshape(*self._mask.shape, -1)
        values = x[self._mask]
        self.active += int((values.abs() > self._threshold).sum())
        self.seen += values.numel()


@contextmanager
def _listening(counters: list[_Counter], mask: Tensor) -> Iterator[None]:
    handles = [item.listen(mask) for item in counters]
    try:
        with torch.inference_mode():
            yield
    finally:
        for handle in handles:
            handle.remove()
