"""The oracle of the adapter tests: plain torch modules put into a copy of the model by replacing its linears."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autopeft.backbones import Backbone, wrap_model
from tests.modules.cases import train_steps
from tests.tiny import tiny_batch

TARGETS = torch.tensor([0, 1, 2, 1])


class AdaptedBlock:
    """A block of a model with adapters written as ordinary modules.

    Args:
        backbone: Its model is copied.
        first: Linear part whose input the parallel adapter reads.
        last: Linear part whose output the adapters change.
    """

    def __init__(self, backbone: Backbone, layer: int, first: str, last: str) -> None:
        self.model = copy.deepcopy(backbone.model)
        paths = [backbone.linear(layer, part).path for part in (first, last)]  # type: ignore[union-attr]
        self.adapters = nn.ModuleDict()
        inputs: list[Tensor] = []
        start = self.model.get_submodule(paths[0])
        end = self.model.get_submodule(paths[1])
        plain = end.forward

        def forward(x: Tensor) -> Tensor:
            y = plain(x)
            result = y
            if "serial" in self.adapters:
                result = result + self.scales["serial"] * self.adapters["serial"](y)
            if "parallel" in self.adapters:
                result = result + self.scales["parallel"] * self.adapters["parallel"](inputs.pop())
            return result

        start.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        end.forward = forward
        self.scales: dict[str, float] = {}

    def add(self, name: str, key: str, state: dict[str, Tensor], activation: nn.Module, scale: float) -> None:
        """Add the adapter "serial" or "parallel" with the values that a state dict has under `key`."""
        down, up = (state[f"{key}.{part}_weight"] for part in ("down", "up"))
        adapter = nn.Sequential(nn.Linear(*down.T.shape), activation, nn.Linear(*up.T.shape))
        with torch.no_grad():
            for linear, part in ((adapter[0], "down"), (adapter[2], "up")):
                linear.weight.copy_(state[f"{key}.{part}_weight"])
                linear.bias.copy_(state[f"{key}.{part}_bias"])
        self.adapters[name] = adapter
        self.scales[name] = scale

    def trained_logits(self, head_paths: tuple[str, ...], optimizer: str) -> Tensor:
        """Logits after three steps over adapters and head."""
        head = [p for path in head_paths for p in self.model.get_submodule(path).parameters()]
        parameters = [*self.adapters.parameters(), *(p.requires_grad_() for p in head)]
        train_steps(parameters, lambda: F.cross_entropy(self.logits(), TARGETS), optimizer=optimizer)
        return self.logits().detach()

    def logits(self) -> Tensor:
        logits: Tensor = self.model(**tiny_batch()).logits
        return logits


def unfrozen_twin(backbone: Backbone) -> Any:
    """A copy of the model, for training some of its own parameters."""
    return wrap_model(copy.deepcopy(backbone.model)).model
