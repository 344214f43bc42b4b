"""How every trial of a study is trained: what is not searched."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.study import Fidelity

#: Fewest tokens that texts may be truncated to.
MIN_TOKENS = 2
PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Training settings shared by all trials of a study.

    Args:
        batch_size: Examples per optimizer step, >= 1.
        max_tokens: Longer inputs are truncated to this many tokens, >= 2, or to the positions that the backbone has
            beside a prefix that takes up some.
        weight_decay: Decoupled decay of trained matrices (biases and other vectors are spared), >= 0.
        warmup_share: Share of the steps in which the learning rate rises linearly to its peak, in [0, 1);
            over the rest it falls linearly to 0.
        max_grad_norm: Each candidate's gradient is scaled down to this Euclidean norm, > 0; None never clips.
        evaluations_per_epoch: Points of the learning curve per epoch, >= 1; the last one falls on the epoch's end.
        rungs: Shares of the run's steps, in (0, 1), ascending, after which the curve has points as well.
        rung_examples: Examples of the search split that are scored at a rung that is no point of an epoch, >= 1: always
            the same ones, drawn once for all runs. None scores all of them.
        precision: Of the frozen weights and the activations: ``"auto"``, ``"bfloat16"`` or ``"float32"``. Trained
            parameters, their gradients and the optimizer are always float32.
    """

    batch_size: int = 16
    max_tokens: int = 128
    weight_decay: float = 0.0
    warmup_share: float = 0.06
    max_grad_norm: float | None = 1.0
    evaluations_per_epoch: int = 1
    precision: str = "auto"
    rungs: tuple[float, ...] = ()
    rung_examples: int | None = None

    def __post_init__(self) -> None:
        # JSON has lists alone.
        object.__setattr__(self, "rungs", tuple(self.rungs))
        if list(self.rungs) != sorted(set(self.rungs)) or not all(0 < share < 1 for share in self.rungs):
            raise UsageError(f"`rungs` must be ascending shares in (0, 1), but got {list(self.rungs)}.")
        if self.rung_examples is not None and self.rung_examples < 1:
            raise UsageError(f"`rung_examples >= 1` must hold, but got {self.rung_examples}; None scores all.")
        for name, low in (("batch_size", 1), ("max_tokens", MIN_TOKENS), ("evaluations_per_epoch", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"`{name} >= {low}` must hold, but got {getattr(self, name)}.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"`weight_decay >= 0` must hold, but got {self.weight_decay}.")
        if not 0 <= self.warmup_share < 1:
            raise UsageError(f"`0 <= warmup_share < 1` must hold, but got {self.warmup_share}.")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise UsageError(f"`max_grad_norm > 0` must hold, but got {self.max_grad_norm}; None never clips.")
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)

    def n_steps(self, fidelity: Fidelity) -> int:
        """Optimizer steps of a run."""
        return self.steps_per_epoch(fidelity) * fidelity.epochs

    def steps_per_epoch(self, fidelity: Fidelity) -> int:
        """Optimizer steps of each pass over the training examples."""
        return -(-fidelity.train_examples // self.batch_size)

    def rung_steps(self, fidelity: Fidelity) -> tuple[int, ...]:
        """Steps of the rungs before a run's end, ascending; the same for every run of this fidelity."""
        n = self.n_steps(fidelity)
        return tuple(step for step in sorted({math.ceil(n * share) for share in self.rungs}) if step < n)

    def epoch_points(self, fidelity: Fidelity) -> tuple[int, ...]:
        """Steps of the curve's regular points, ascending; the last one is the run's end."""
        n = self.steps_per_epoch(fidelity)
        per_epoch = min(self.evaluations_per_epoch, n)
        return tuple(
            epoch * n + math.ceil(n * (i + 1) / per_epoch) for epoch in range(fidelity.epochs) for i in range(per_epoch)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form for `StudySpec.training`; `TrainingSettings(**data)` is its inverse."""
        data = asdict(self)
        if not self.rungs:
            # Studies without rungs are those of versions that knew none.
            del data["rungs"], data["rung_examples"]
        return {**data, "rungs": list(self.rungs)} if self.rungs else data
