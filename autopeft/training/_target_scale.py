"""Values to predict, in units in which a head that starts near zero can learn them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autopeft.training._optimizer import OwnedTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetScale:
    """Standardisation of regression targets: the head learns (value - mean) / deviation.

    At the end both numbers are written into the head's last linear map (see `fold`), so that a trained state predicts
    natural values by itself.

    Args:
        mean: Subtracted from targets, in their unit.
        deviation: Unit of the standardised targets, > 0.
    """

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, targets: npt.NDArray[Any], *, has_bias: bool) -> TargetScale:
        """Scale of the training targets.

        Args:
            targets: Natural values.
            has_bias: Whether the head's last map has a bias that can take up the mean; else it stays.
        """
        mean = float(np.mean(targets)) if has_bias else 0.0
        deviation = math.sqrt(float(np.mean((targets - mean) ** 2)))
        return cls(mean=mean, deviation=deviation if deviation > 0 else 1.0)

    def standardize(self, targets: Tensor) -> Tensor:
        """Natural values to what the head learns."""
        return (targets - self.mean) / self.deviation

    def naturalize(self, outputs: Tensor) -> Tensor:
        """What the head says to natural values."""
        return outputs * self.deviation + self.mean

    def fold(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A trained state whose head gives natural values: its last map has one output, w and b become s w, s b + m."""
        folded = dict(state)
        for name in state:
            if _is_last_weight(name, state[name]):
                folded[name] = state[name] * self.deviation
                bias = name.removesuffix("weight") + "bias"
                if bias in state:
                    folded[bias] = self.naturalize(state[bias])
        return folded


def head_has_bias(parameters: Sequence[OwnedTensor]) -> bool:
    """Whether the head's last linear map, the one with a single output, has a bias."""
    last = [item.name for item in parameters if _is_last_weight(item.name, item.tensor[0])]
    names = {item.name for item in parameters}
    return bool(last) and all(name.removesuffix("weight") + "bias" in names for name in last)


def _is_last_weight(name: str, tensor: Tensor) -> bool:
    return name.startswith("head.") and name.endswith(".weight") and tensor.dim() == 2 and tensor.shape[0] == 1
