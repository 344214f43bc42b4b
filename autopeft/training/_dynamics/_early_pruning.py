"""Dropping what turns out to matter least."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autopeft.training._dynamics._base import Dynamics, TrainedModule, fit


class EarlyPruning(Dynamics):
    r"""Early pruning of Light-PEFT (arXiv 2406.03792), of the trained modules.

    Over the first ``at`` share of the steps the first-order importance :math:`\sum |\theta\, \partial L / \partial
    \theta|` is summed per module and, where the type has ranks, per rank. Then the ``modules`` share of the modules
    with the lowest importance, and the ``ranks`` share of the ranks of those that stay, go back to their initial
    values, at which they change nothing, and stay there. Ranks are compared over all modules.

    Modules that change the output at their initial values (prefixes) are not pruned. The paper also prunes the
    backbone, and estimates with masks that are regularised; here the trained values take the masks' place.
    """

    keeps_initial = True

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]
        #: Steps that are estimated over.
        self.n_estimating = max(1, int(self.number("at") * self.n_steps))
        self._prunable = {item.key: item for item in self.modules if item.is_identity}
        self._importance = {
            key: {name: torch.zeros_like(value) for name, value in item.values.items()}
            for key, item in self._prunable.items()
        }
        self._pruned: frozenset[str] = frozenset()
        self._n_values = sum(item.n_values for item in self.modules)

    def frozen(self, step: int) -> frozenset[str]:
        return self._pruned

    @torch.no_grad()
    def before_update(self, step: int) -> None:
        # A probe repeats its first step: what has been decided by then stays.
        if step >= self.n_estimating or not self._importance:
            return
        for key, item in self._prunable.items():
            for name, total in self._importance[key].items():
                total.add_((item.values[name] * item.gradients[name]).abs_())

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        if step != self.n_estimating - 1 or not self._importance:
            return
        totals = {key: float(sum(map(torch.sum, found.values()))) for key, found in self._importance.items()}
        order = sorted(totals, key=lambda key: (totals[key], key))
        self._pruned = frozenset(order[: int(self.number("modules") * len(order))])
        for key in self._pruned:
            item = self._prunable[key]
            self._n_values -= item.n_values
            for name, value in item.values.items():
                value.copy_(item.initial[name])
        self._prune_ranks([self._prunable[key] for key in order if key not in self._pruned])
        self._importance.clear()
        self.revision += 1

    def state(self) -> dict[str, Any]:
        return {
            "importance": {
                key: {name: value.cpu().clone() for name, value in found.items()}
                for key, found in self._importance.items()
            },
            "pruned": sorted(self._pruned),
            "frozen": {
                item.key: {name: value.cpu().clone() for name, value in item.frozen.items()} for item in self.modules
            },
            "n_values": self._n_values,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state["importance"]:
            self._importance.clear()
        for key, found in state["importance"].items():
            for name, value in found.items():
                fit(value, self._importance[key][name])
        for item in self.modules:
            for name, value in state["frozen"][item.key].items():
                fit(value, item.frozen[name])
        self._pruned = frozenset(state["pruned"])
        self._n_values = state["n_values"]
        self.revision += 1

    def _prune_ranks(self, modules: list[TrainedModule]) -> None:
        units = [
            (float(importance), item.key, rank)
            for item in modules
            if item.size is not None and item.ranked
            for rank, importance in enumerate(self._rank_importance(item)[: item.size])
        ]
        for _, key, rank in sorted(units)[: int(self.number("ranks") * len(units))]:
            item = self._prunable[key]
            for name in item.ranked:
                item.values[name][rank].copy_(item.initial[name][rank])
                item.frozen[name][rank] = True
                self._n_values -= item.values[name][rank].numel()

    def _rank_importance(self, item: TrainedModule) -> Tensor:
        parts = [self._importance[item.key][name] for name in sorted(item.ranked)]
        return torch.cat([part.reshape(len(part), -1) for part in parts], 1).sum(1).cpu()

    def statistics(self) -> Mapping[str, float]:
        return {"trainable_parameters": float(self._n_values)}
