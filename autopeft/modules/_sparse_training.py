"""Sparse deltas in training: rules that change the choice of entries, and a penalty on the learned matrix's rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autopeft.modules._layout import generator
from autopeft.modules._listener import Listener, Moments
from autopeft.modules._sparse_product import Observer, SparseOperation
from autopeft.modules._sparse_rules import Entries, Rule


class SparseTraining(Listener):
    """Follows the owners of a stack of sparse deltas, each by a rule of its own.

    Args:
        operation: Computes with the stack.
        sizes: Entries of each owner.
        rules: By row of the stack; rows without one are left alone.
        nuclear: Weight of each owner's penalty on the nuclear norm; 0 for none.
        weight: Gives the frozen weights at flat positions, float32.
        listeners: Everyone who listens in this injection; among them, each candidate's sparse deltas take turns.
    """

    def __init__(
        self,
        operation: SparseOperation,
        sizes: Sequence[int],
        *,
        rules: Mapping[int, Rule],
        nuclear: Sequence[float],
        weight: Callable[[Tensor], Tensor],
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__(operation.stack)
        self._sizes = tuple(sizes)
        self._shape = operation.shape
        self._rules = dict(rules)
        self._nuclear = tuple(nuclear)
        self._weight = weight
        self._listeners = listeners
        operation.observer_of = self._observer

    def begin_training(self, n_steps: int) -> None:
        for rule in self._rules.values():
            rule.begin(n_steps)

    def shortfalls(self, n_steps: int) -> set[str]:
        return {text for rule in self._rules.values() if (text := rule.shortfall(n_steps)) is not None}

    def penalty(self) -> Tensor | None:
        turns = [self._nuclear[row] > 0 and self._is_turn(row) for row in self.stack.rows]
        if not any(turns):
            return None
        zero = self.stack.tensors["values"].new_zeros(())
        return torch.stack(
            [self._nuclear_norm(row) if turn else zero for row, turn in zip(self.stack.rows, turns, strict=True)]
        )

    @torch.no_grad()
    def before_update(self, step: int, moments: Moments) -> None:
        for row, rule in self._active_rules():
            rule.before_update(step, self._entries(row))

    @torch.no_grad()
    def after_update(self, step: int, moments: Moments) -> None:
        for row, rule in self._active_rules():
            first, second = (
                moment[row, : self._sizes[row]] for moment in moments.moments(self.stack.tensors["values"])
            )
            rule.after_update(step, self._entries(row), (first, second))

    def training_state(self, candidate: int) -> dict[str, Any]:
        rule = self._rules.get(self.stack.owners.index(candidate))
        return {} if rule is None else rule.state()

    def load_training_state(self, candidate: int, state: Mapping[str, Any]) -> None:
        rule = self._rules.get(self.stack.owners.index(candidate))
        if rule is not None:
            rule.load_state(state)

    def statistics(self, candidate: int) -> Mapping[str, float]:
        rule = self._rules.get(self.stack.owners.index(candidate))
        return {} if rule is None else rule.statistics()

    def begin_statistics(self) -> None:
        for rule in self._rules.values():
            rule.begin_statistics()

    def _active_rules(self) -> list[tuple[int, Rule]]:
        return [(row, self._rules[row]) for row in self.stack.rows if row in self._rules]

    def _observer(self, row: int) -> Observer | None:
        rule, layout = self._rules.get(row), self.stack.layout
        if rule is None or not layout.is_training or not rule.is_watching(layout.step):
            return None
        return rule.observe

    def _entries(self, row: int) -> Entries:
        tensor, size = self.stack.tensors["values"], self._sizes[row]
        return Entries(
            index=self.stack.buffers["index"][row, :size],
            values=tensor.detach()[row, :size],
            gradient=None if tensor.grad is None else tensor.grad[row, :size],
        )

    def _is_turn(self, row: int) -> bool:
        """Each step one of the candidate's sites, drawn from its seed, pays for all: a decomposition is dear."""
        candidate, layout = self.stack.owners[row], self.stack.layout
        sites = [item for item in self._listeners if isinstance(item, SparseTraining) and item._pays(candidate)]
        rng = generator(layout.seeds[candidate], "sparse.nuclear", str(layout.step))
        return sites[int(torch.randint(len(sites), (), generator=rng))] is self

    def _pays(self, candidate: int) -> bool:
        owners = self.stack.owners
        return candidate in owners and self._nuclear[owners.index(candidate)] > 0

    def _nuclear_norm(self, row: int) -> Tensor:
        index = self.stack.buffers["index"][row, : self._sizes[row]]
        entries = self._weight(index) + self.stack.tensors["values"][row, : self._sizes[row]]
        if not bool(entries.isfinite().all()):
            # The decomposition would raise; so the candidate alone is found to have diverged.
            return entries.sum() * self._nuclear[row]
        matrix = entries.new_zeros(self._shape[0] * self._shape[1]).scatter(0, index, entries).view(self._shape)
        norm: Tensor = torch.linalg.svdvals(matrix).sum()
        return norm * self._nuclear[row]
