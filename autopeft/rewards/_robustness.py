"""How well a candidate does on texts with mistakes in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from autopeft.exceptions import RewardError, UsageError
from autopeft.objectives import Direction
from autopeft.rewards._base import BuiltinReward, RewardValue
from autopeft.rewards._noise import add_noise
from autopeft.tasks import Split, Task
from autopeft.training import SplitData, TrainedCandidate


@dataclass(frozen=True, kw_only=True)
class Robustness(BuiltinReward):
    """The task's first metric on the split's texts with word-level noise.

    Both texts of a pair get noise. The noise depends on the run's seed and the example alone: all candidates of a
    search see the same mistakes. The loss against clean texts is recorded as ``drop``.

    Args:
        share: Of words that are swapped, dropped or misspelled, in (0, 1].
    """

    share: float = 0.1

    name: ClassVar[str] = "robustness"
    way: ClassVar[Direction] = Direction.MAXIMIZE
    summary: ClassVar[str] = "the task's first metric with 10 % of the words swapped, dropped or misspelled"
    source: ClassVar[str] = "typos: Belinkov and Bisk, arXiv 1711.02173; swaps and drops: Wei and Zou, arXiv 1901.11196"
    cost: ClassVar[str] = "one pass over the split, and a second one that is shared with other rewards"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"robustness.share must lie in (0, 1], but got {self.share:g}.")

    def direction(self, task: Task) -> Direction:
        """That of the metric."""
        return task.metrics[task.primary_metric]

    def measure(self, candidate: TrainedCandidate) -> RewardValue:
        """Evaluate on noisy texts."""
        metric = next(iter(candidate.task.metrics))
        clean = candidate.evaluate().get(metric)
        noisy = candidate.evaluate(self.noisy(candidate.data, candidate.seed)).get(metric)
        if noisy is None:
            raise RewardError(
                self.name, f"{metric} is undefined on the noisy texts, as where all predictions are equal."
            )
        return RewardValue(value=noisy, details={} if clean is None else {"drop": clean - noisy})

    def noisy(self, data: SplitData, seed: int) -> Split:
        """The texts with noise."""
        texts = tuple(
            add_noise(text, self.share, np.random.default_rng([seed, row, 0])) for row, text in enumerate(data.texts)
        )
        pairs = data.pairs and tuple(
            add_noise(text, self.share, np.random.default_rng([seed, row, 1])) for row, text in enumerate(data.pairs)
        )
        return Split(texts=texts, pairs=pairs, targets=np.array(data.targets))
