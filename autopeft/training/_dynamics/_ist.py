"""Layers by learned importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autopeft.training._dynamics._base import Dynamics


class Ist(Dynamics):
    r"""IST (arXiv 2410.11772): importance-aware sparse tuning.

    Every layer with modules has an importance, 0 at first. Every ``interval`` steps:

    - ``subsets`` random halves of the layers lose what they have learned, one half after the other, and the loss L_c
      of the coming batch is measured without it. With the reward :math:`r_c = e^{-L_c}`, a layer's importance grows by
      ``rate`` times the mean of :math:`\pm (r_c - \bar r)`, plus where the layer stayed and minus where it was
      suppressed;
    - ``layers`` layers are drawn without replacement, with probabilities proportional to :math:`e^{importance}`; they
      learn until the next time.

    The paper suppresses a module's response by a factor; here it is suppressed altogether, which means the same for
    every module type.
    """

    keeps_initial = True

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]
        self.importance = dict.fromkeys(self.layers, 0.0)
        self._frozen: frozenset[str] = frozenset()

    @property
    def _is_idle(self) -> bool:
        return int(self.number("layers")) >= len(self.layers)

    def _is_due(self, step: int) -> bool:
        return step % int(self.number("interval")) == 0 and not self._is_idle

    def _suppressed(self, step: int) -> list[set[int]]:
        n_suppressed = max(1, len(self.layers) // 2)
        return [
            set(self.rng(step, 1, trial).choice(self.layers, n_suppressed, replace=False).tolist())
            for trial in range(int(self.number("subsets")))
        ]

    def trials(self, step: int) -> Sequence[frozenset[str]]:
        if not self._is_due(step):
            return ()
        return [
            frozenset(item.key for item in self.modules if item.layer in layers) for layers in self._suppressed(step)
        ]

    def learn(self, step: int, losses: Sequence[float]) -> None:
        if not self._is_due(step):
            return
        # A loss that is not finite belongs to a candidate that diverges: it teaches nothing.
        is_finite = all(math.isfinite(loss) for loss in losses)
        rewards = np.array([math.exp(-loss) if is_finite else 0.0 for loss in losses])
        advantages = rewards - rewards.mean()
        for layer in self.layers:
            signs = [-1.0 if layer in layers else 1.0 for layers in self._suppressed(step)]
            self.importance[layer] += self.number("rate") * float(np.mean(advantages * signs))
        scores = np.array([self.importance[layer] for layer in self.layers])
        # The largest scores with Gumbel noise are a draw without replacement by softmax probabilities.
        noisy = scores + self.rng(step, 0).gumbel(size=len(scores))
        chosen = np.argsort(-noisy, kind="stable")[: int(self.number("layers"))]
        self._frozen = self.outside([self.layers[index] for index in chosen])

    def frozen(self, step: int) -> frozenset[str]:
        return self._frozen

    def state(self) -> dict[str, Any]:
        # JSON and its like have no numbers as keys.
        return {"importance": [self.importance[layer] for layer in self.layers], "frozen": sorted(self._frozen)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.importance = dict(zip(self.layers, state["importance"], strict=True))
        self._frozen = frozenset(state["frozen"])

    def statistics(self) -> Mapping[str, float]:
        return {f"importance_{layer}": value for layer, value in self.importance.items()}
