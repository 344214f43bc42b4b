"""How the choice of a sparse delta's entries follows the training: by gradients, by values, or by both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autopeft.modules._listener import ADAM_BETAS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entries:
    """One candidate's chosen entries: views, to be changed in place, all of shape (n,).

    Args:
        index: Flat positions.
        values: Their deltas.
        gradient: Of the deltas; None if no backward pass has reached them.
    """

    index: Tensor
    values: Tensor
    gradient: Tensor | None


#: First and second moment of the deltas in the optimizer: views, shape (n,).
MomentPair = tuple[Tensor, Tensor]


class Rule:
    """Follows one candidate's training at one site; every method does nothing by default."""

    #: Attributes that a rule carries from one step to the next: tensors, numbers or None.
    remembers: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """Copies of what the rule remembers; what it has not made yet is left out."""
        found = {name: vars(self)[name] for name in self.remembers if name in vars(self)}
        return {name: value.cpu().clone() if isinstance(value, Tensor) else value for name, value in found.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` told, after `begin`."""
        for name in self.remembers:
            if name in state:
                setattr(self, name, state[name])

    def begin(self, n_steps: int) -> None:
        """Called before the first of so many steps."""

    def shortfall(self, n_steps: int) -> str | None:
        """What so few steps leave undone, with the way out; None if nothing."""
        return None

    def is_watching(self, step: int) -> bool:
        """Whether `observe` wants the gradients of a step."""
        return False

    def observe(self, gradient: Tensor) -> None:
        """Told the gradient of the whole matrix, shape (out, in), once per backward pass of a watched step."""

    def before_update(self, step: int, entries: Entries) -> None:
        """Called when the gradients of a step are complete."""

    def after_update(self, step: int, entries: Entries, moments: MomentPair) -> None:
        """Called when the deltas have been updated."""

    def statistics(self) -> Mapping[str, float]:
        """Finite numbers by name, since `begin_statistics`."""
        return {}

    def begin_statistics(self) -> None:
        """Forget what has been counted."""


class WarmPick(Rule):
    r"""Chooses once, after the first batches: the entries with the largest sum of \|g\|, or of \|g w\|.

    Until then the deltas stay zero. Holds two dense matrices during that time, and nothing afterwards.

    Args:
        n_batches: How many; at most one less than there are steps.
        weight: Gives the frozen weight, shape (out, in), for \|g w\|; None for \|g\|.
    """

    remembers = ("_score", "_batch")

    def __init__(self, n_batches: int, weight: Callable[[], Tensor] | None) -> None:
        self._wanted = n_batches
        self._weight = weight
        self._n_batches = 0
        self._score: Tensor | None = None
        self._batch: Tensor | None = None

    def begin(self, n_steps: int) -> None:
        self._n_batches = min(self._wanted, n_steps - 1)
        self._score = self._batch = None

    def shortfall(self, n_steps: int) -> str | None:
        if self._wanted < n_steps:
            return None
        return (
            f"sparse entries that gradients pick wait for warmup={self._wanted} batches, but the training has "
            f"{n_steps} steps: they are trained in the last one alone. Lower the option warmup, or train on more "
            "examples or for more epochs."
        )

    def is_watching(self, step: int) -> bool:
        return step < self._n_batches

    def observe(self, gradient: Tensor) -> None:
        found = gradient.float()
        self._batch = found.clone() if self._batch is None else self._batch.add_(found)

    def before_update(self, step: int, entries: Entries) -> None:
        if not self.is_watching(step):
            return
        if entries.gradient is not None:
            entries.gradient.zero_()
        if self._batch is not None:
            self._score = self._batch.abs() if self._score is None else self._score.add_(self._batch.abs_())
            self._batch = None

    def after_update(self, step: int, entries: Entries, moments: MomentPair) -> None:
        if step + 1 != self._n_batches or self._score is None:
            return
        score = self._score if self._weight is None else self._score * self._weight().float().abs()
        self._score = None
        entries.index.copy_(torch.topk(score.flatten(), len(entries.index)).indices.sort().values)


class FreezeGrown(Rule):
    """Trains on, from a share of the steps, only those entries whose weights are still as small as the smallest were.

    Args:
        share: Of the steps, in (0, 1).
        weight: Gives the frozen weights at positions, float32, shape (n,).
    """

    remembers = ("_is_free",)

    def __init__(self, share: float, weight: Callable[[Tensor], Tensor]) -> None:
        self._share = share
        self._weight = weight
        self._step = -1
        self._is_free: Tensor | None = None

    def begin(self, n_steps: int) -> None:
        self._step = math.floor(self._share * n_steps) - 1
        self._is_free = None

    def shortfall(self, n_steps: int) -> str | None:
        if self._share * n_steps >= 1:
            return None
        return (
            f"sparse entries are to be chosen again after the share redo_at={self._share:g} of the steps, but of "
            f"{n_steps} steps that is none: the first choice stays. Raise the option redo_at, or train on more "
            "examples or for more epochs."
        )

    def before_update(self, step: int, entries: Entries) -> None:
        if self._is_free is not None and entries.gradient is not None:
            entries.gradient.mul_(self._is_free)

    def after_update(self, step: int, entries: Entries, moments: MomentPair) -> None:
        if step != self._step:
            return
        weight = self._weight(entries.index)
        self._is_free = (weight + entries.values).abs() <= weight.abs().max()
        for moment in moments:
            moment.mul_(self._is_free)

    def statistics(self) -> Mapping[str, float]:
        return {"frozen": 0.0 if self._is_free is None else 1.0 - float(self._is_free.float().mean())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When entries are exchanged, and how many of them.

    Args:
        interval: Steps from one exchange to the next.
        accumulate: Steps before an exchange whose gradients decide, at most `interval`; the first exchange is after so
            many steps, and of all entries.
        rate: Share of the entries at the beginning, in (0, 1).
        decay: How the share falls to zero at the end: ``linear`` or ``cosine``.
    """

    interval: int
    accumulate: int
    rate: float
    decay: str

    def steps_until(self, step: int) -> int:
        """Steps from a step to the next one, or itself, that ends with an exchange."""
        return (self.accumulate - 1 - step) % self.interval

    def share(self, step: int, n_steps: int) -> float:
        """Share of the entries that the exchange after a step is about; 0 if it is none."""
        done = step + 1
        if self.steps_until(step) or done >= n_steps:
            return 0.0
        if done == self.accumulate:
            return 1.0
        progress = done / n_steps
        return self.rate * (1 - progress if self.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2)


class Exchange(Rule):
    """Drops the entries of smallest deltas and grows others in their place, again and again (SpIEL, arXiv 2401.16405).

    A grown entry starts at zero with the moments that Adam would have if it had seen the gradients of the window: so
    corrected, its first step is as long as any other.

    Args:
        schedule: When, and how many.
        shape: Of the matrix, (out, in).
    """

    def __init__(self, schedule: Schedule, shape: tuple[int, int]) -> None:
        self._schedule = schedule
        self.shape = shape
        self._n_steps = 0
        self._n_replaced = 0

    def begin(self, n_steps: int) -> None:
        self._n_steps = n_steps
        self.forget()

    def shortfall(self, n_steps: int) -> str | None:
        if self._schedule.accumulate < n_steps:
            return None
        return (
            f"sparse entries are to be exchanged after accumulate={self._schedule.accumulate} steps, but the training "
            f"has {n_steps}: none ever is. Lower the option accumulate, or train on more examples or for more epochs."
        )

    def is_window(self, step: int) -> bool:
        """Whether the gradients of a step decide about the next exchange."""
        until = self._schedule.steps_until(step)
        return until < self._schedule.accumulate and step + until + 1 < self._n_steps

    def after_update(self, step: int, entries: Entries, moments: MomentPair) -> None:
        share = self._schedule.share(step, self._n_steps)
        if share:
            self._replace(entries, moments, int(len(entries.index) * share), step + 1)
        if share or not self.is_window(step):
            self.forget()

    def statistics(self) -> Mapping[str, float]:
        return {"replaced": float(self._n_replaced)}

    def begin_statistics(self) -> None:
        self._n_replaced = 0

    def grow(self, entries: Entries, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose entries to grow.

        Args:
            entries: All of now.
            dropped: Places in `entries` that are to be dropped, the least useful first.

        Returns:
            Flat positions, best first, at most as many as are dropped, none of an entry that stays; means of their
            gradients and of the squares of their gradients.
        """
        raise NotImplementedError

    def forget(self) -> None:
        """Begin a new window."""
        raise NotImplementedError

    def _replace(self, entries: Entries, moments: MomentPair, n: int, n_done: int) -> None:
        dropped = torch.topk(entries.values.abs(), n, largest=False).indices
        grown, mean, square = self.grow(entries, dropped)
        # What is dropped and grown at once stays as it is.
        is_new = ~torch.isin(grown, entries.index[dropped])
        places = dropped[~torch.isin(entries.index[dropped], grown)][: int(is_new.sum())]
        grown, mean, square = (found[is_new][: len(places)] for found in (grown, mean, square))
        entries.index[places] = grown
        entries.values[places] = 0.0
        moments[0][places] = mean * (1 - ADAM_BETAS[0] ** n_done)
        moments[1][places] = square * (1 - ADAM_BETAS[1] ** n_done)
        self._n_replaced += len(places)


class GradientExchange(Exchange):
    """Grows by the absolute sum of gradients (SpIEL-AG, after RigL).

    The first batch of a window names as many candidates as there are entries, those of largest gradient; only theirs
    are summed up, so that memory stays in proportion to the entries.
    """

    remembers = ("_candidates", "_sums", "_squares", "_batch", "_n_batches")

    def forget(self) -> None:
        self._candidates: Tensor | None = None

    def is_watching(self, step: int) -> bool:
        return self.is_window(step)

    def observe(self, gradient: Tensor) -> None:
        flat = gradient.flatten().float()
        if self._candidates is None:
            self._candidates = torch.topk(flat.abs(), self._n).indices
            self._sums, self._squares, self._batch = (flat.new_zeros(self._n) for _ in range(3))
            self._n_batches = 0
        self._batch += flat[self._candidates]

    def before_update(self, step: int, entries: Entries) -> None:
        if self._candidates is not None:
            self._sums += self._batch
            self._squares += self._batch.square()
            self._batch.zero_()
            self._n_batches += 1

    def grow(self, entries: Entries, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._candidates is None:
            nothing = entries.values[:0]
            return entries.index[:0], nothing, nothing
        stays = torch.ones_like(entries.index, dtype=torch.bool)
        stays[dropped] = False
        is_open = ~torch.isin(self._candidates, entries.index[stays])
        sums, squares = self._sums[is_open], self._squares[is_open]
        best = torch.topk(sums.abs(), min(len(dropped), len(sums))).indices
        return self._candidates[is_open][best], sums[best] / self._n_batches, squares[best] / self._n_batches

    def __init__(self, schedule: Schedule, shape: tuple[int, int], n: int) -> None:
        super().__init__(schedule, shape)
        self._n = n
        self.forget()


class CoverExchange(Exchange):
    """Grows where SM3 (arXiv 1901.11150) expects large gradients (SpIEL-MA).

    From the gradients of the entries alone, the largest sums of squares of each row and each column are kept; an
    entry is worth the product of its row's and its column's, and its second moment starts at the smaller of the two.
    """

    remembers = ("_rows", "_columns", "_n_batches")

    def forget(self) -> None:
        self._rows: Tensor | None = None

    def before_update(self, step: int, entries: Entries) -> None:
        if not self.is_window(step) or entries.gradient is None:
            return
        if self._rows is None:
            self._rows, self._columns = (entries.values.new_zeros(size) for size in self.shape)
            self._n_batches = 0
        row, column = entries.index // self.shape[1], entries.index % self.shape[1]
        sums = torch.minimum(self._rows[row], self._columns[column]) + entries.gradient.square()
        self._rows.scatter_reduce_(0, row, sums, "amax")
        self._columns.scatter_reduce_(0, column, sums, "amax")
        self._n_batches += 1

    def grow(self, entries: Entries, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._rows is None:
            nothing = entries.values[:0]
            return entries.index[:0], nothing, nothing
        worth = torch.outer(self._rows, self._columns).flatten()
        worth[entries.index] = -1.0
        n = min(len(dropped), worth.numel() - len(entries.index))
        grown = torch.topk(worth, n).indices
        bound = torch.minimum(self._rows[grown // self.shape[1]], self._columns[grown % self.shape[1]])
        return grown, torch.zeros_like(bound), bound / self._n_batches

    def __init__(self, schedule: Schedule, shape: tuple[int, int]) -> None:
        super().__init__(schedule, shape)
        self.forget()
