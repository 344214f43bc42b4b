"""The trained tensors of one module type at one site, stacked over the candidates that have it there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autopeft.exceptions import ConfigurationError
from autopeft.modules._layout import RowLayout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnedParameter:
    """A trained tensor whose leading axis runs over candidates.

    Args:
        name: Unique within an injection.
        tensor: Float32 leaf with ``requires_grad``, shape (k, ...); smaller candidates are padded with zeros, and the
            gradient of the padding is zero.
        candidates: Owner of each leading row.
        rate_factors: On the learning rate of each leading row; 1 is the candidate's own rate.
    """

    name: str
    tensor: Tensor
    candidates: tuple[int, ...]
    rate_factors: tuple[float, ...]


class Stack:
    """Tensors of k candidates, and the way from a batch to their rows and back.

    Args:
        key: Where and what, for example ``"layers.3.q.lora"``; prefix of the names in state dicts.
        layout: Whose rows are where.
        owners: The candidates, ascending.
        initial: Each owner's initial values, float32, unpadded, the same names for all.
        transposed: Names of matrices that state dicts hold transposed, because the fast layout differs from
            `torch.nn.Linear`'s (out, in).
        constants: Numbers of each owner that enter the computation but are not trained.
        buffers: Each owner's tensors that are not trained but belong to its state, such as indices; unpadded, the same
            names for all. Padding is zero.
        rate_factors: Factors on the owners' learning rates, by tensor name; 1 for tensors that are not named.
        dtype: In which the values are used; None takes the layout's.
        variant: Tells stacks of the same key apart.
    """

    def __init__(
        self,
        key: str,
        layout: RowLayout,
        owners: Sequence[int],
        initial: Sequence[Mapping[str, Tensor]],
        *,
        transposed: Collection[str] = (),
        constants: Mapping[str, Sequence[float]] | None = None,
        buffers: Sequence[Mapping[str, Tensor]] | None = None,
        rate_factors: Mapping[str, Sequence[float]] | None = None,
        dtype: torch.dtype | None = None,
        variant: str = "",
    ) -> None:
        self.key = key
        self._variant = f"[{variant}]" if variant else ""
        self.layout = layout
        self.owners = tuple(owners)
        self.dtype = dtype or layout.dtype
        self.tensors = {
            name: nn.Parameter(_stack_padded([values[name] for values in initial]).to(layout.device))
            for name in initial[0]
        }
        held = buffers or [{} for _ in initial]
        #: Of all owners, padded, shape (k, ...); to be changed in place.
        self.buffers = {name: _stack_padded([values[name] for values in held]).to(layout.device) for name in held[0]}
        self._rate_factors = {name: tuple(values) for name, values in (rate_factors or {}).items()}
        self._shapes = [{name: value.shape for name, value in values.items()} for values in initial]
        self._buffer_shapes = [{name: value.shape for name, value in values.items()} for values in held]
        self._transposed = frozenset(transposed)
        self._constants = {name: tuple(values) for name, values in (constants or {}).items()}
        self._row_of = {owner: row for row, owner in enumerate(self.owners)}
        self.select()

    def select(self) -> None:
        """Follow the layout's active candidates."""
        active = self.layout.active
        positions = tuple(position for position, owner in enumerate(active) if owner in self._row_of)
        rows = tuple(self._row_of[active[position]] for position in positions)
        #: Active candidates that have this module.
        self.n_active = len(rows)
        #: Every active candidate has it, so that a batch need not be taken apart.
        self.is_everyone = len(positions) == len(active)
        #: The batch belongs to one candidate and it has this module: the ordinary case on a CPU.
        self.is_alone = self.is_everyone and len(active) == 1
        self.rows = rows
        self._row_index = None if rows == tuple(range(len(self.owners))) else self.layout.index(rows)
        self._positions = None if self.is_everyone else self.layout.index(positions)
        self._splits: dict[int, tuple[Tensor, ...]] = {}
        self._chosen = {name: self._choose(values) for name, values in self._constants.items()}

    def _choose(self, values: tuple[float, ...]) -> float | Tensor:
        chosen = [values[row] for row in self.rows]
        if len(set(chosen)) <= 1:
            return chosen[0] if chosen else 1.0
        with torch.inference_mode(False):
            return torch.tensor(chosen, dtype=self.dtype, device=self.layout.device)[:, None, None]

    def value(self, name: str) -> Tensor:
        """The active owners' values in the computing dtype, shape (k, ...)."""
        tensor: Tensor = self.tensors[name]
        if self._row_index is not None:
            tensor = tensor.index_select(0, self._row_index)
        return tensor if tensor.dtype == self.dtype else tensor.to(self.dtype)

    def buffer(self, name: str) -> Tensor:
        """The active owners' values of a buffer, shape (k, ...)."""
        buffer = self.buffers[name]
        return buffer if self._row_index is None else buffer.index_select(0, self._row_index)

    def spread(self, values: Tensor) -> Tensor:
        """Values of the active owners (k,) as values of all active candidates, zero for the others."""
        if self._positions is None:
            return values
        return values.new_zeros(self.layout.n_active).index_add(0, self._positions, values)

    def constant(self, name: str) -> float | Tensor:
        """A constant of the active owners: one number if they agree, else shape (k, 1, 1)."""
        return self._chosen[name]

    def blocks(self, x: Tensor) -> Tensor:
        """Rows of the active owners: (rows, ..., h) -> (k, n, h), positions of a block flattened."""
        blocks = x.reshape(self.layout.n_active, -1, x.shape[-1])
        return blocks if self._positions is None else blocks.index_select(0, self._positions)

    def rows_of(self, x: Tensor) -> Tensor:
        """Rows of the active owners: (rows, ...) -> (k, rows per block, ...)."""
        blocks = x.unflatten(0, (self.layout.n_active, -1))
        return blocks if self._positions is None else blocks.index_select(0, self._positions)

    def split_rows(self, n_rows: int) -> tuple[Tensor, ...]:
        """How to take a batch apart and put it together again.

        Args:
            n_rows: Rows of the batch.

        Returns:
            Indices of the active owners' rows, indices of all others, and the indices that bring the two parts, one
            after the other, back into the order of the batch.
        """
        found = self._splits.get(n_rows)
        if found is None:
            is_own = torch.tensor([owner in self._row_of for owner in self.layout.active])
            is_own = is_own.repeat_interleave(n_rows // self.layout.n_active)
            parts = torch.argsort(~is_own, stable=True)
            with torch.inference_mode(False):
                found = tuple(
                    index.to(self.layout.device, copy=True)
                    for index in (*parts.split([int(is_own.sum()), int((~is_own).sum())]), parts.argsort())
                )
            self._splits[n_rows] = found
        return found

    def add(self, out: Tensor, delta: Tensor, alpha: float = 1.0) -> Tensor:
        """Add to the rows of the active owners.

        Args:
            out: Shape (rows, ..., h).
            delta: Shape (k, n, h).
            alpha: Factor on `delta`.
        """
        if self._positions is None:
            return torch.add(out, delta.view(out.shape), alpha=alpha)
        blocks = out.reshape(self.layout.n_active, -1, out.shape[-1])
        return blocks.index_add(0, self._positions, delta, alpha=alpha).view(out.shape)

    def replace(self, out: Tensor, new: Tensor) -> Tensor:
        """Replace the rows of the active owners; `new` has their number of elements and `out`'s trailing axes."""
        if self._positions is None:
            return new.reshape(out.shape)
        blocks = out.unflatten(0, (self.layout.n_active, -1))
        new = new.reshape(self.n_active, *blocks.shape[1:])
        return blocks.index_copy(0, self._positions, new).view(out.shape)

    def parameters(self) -> list[OwnedParameter]:
        return [
            OwnedParameter(
                name=f"{self.key}.{name}{self._variant}",
                tensor=tensor,
                candidates=self.owners,
                rate_factors=self._rate_factors.get(name, (1.0,) * len(self.owners)),
            )
            for name, tensor in self.tensors.items()
        ]

    def count(self, candidate: int) -> int:
        """Trained numbers of a candidate, padding left out; 0 if it has no such module."""
        row = self._row_of.get(candidate)
        return 0 if row is None else sum(shape.numel() for shape in self._shapes[row].values())

    def state(self, candidate: int) -> dict[str, Tensor]:
        """A candidate's values and buffers: copies on the CPU, unpadded, linear weights as (out, in)."""
        row = self._row_of.get(candidate)
        if row is None:
            return {}
        return {
            f"{self.key}.{name}": self._external(name, self._unpadded(name, row)).detach().to("cpu", copy=True)
            for name in (*self.tensors, *self.buffers)
        }

    @torch.no_grad()
    def load(self, candidate: int, state: Mapping[str, Tensor]) -> None:
        """Set a candidate's values from those of `state`.

        Raises:
            ConfigurationError: If a tensor is missing or has another shape.
        """
        row = self._row_of.get(candidate)
        if row is None:
            return
        for name in (*self.tensors, *self.buffers):
            target, full = self._unpadded(name, row), f"{self.key}.{name}"
            expected = self._external(name, target).shape
            if full not in state:
                raise ConfigurationError(f"the state lacks {full!r}, which the configuration trains.")
            if state[full].shape != expected:
                raise ConfigurationError(
                    f"{full} must have shape {tuple(expected)}, but got {tuple(state[full].shape)}."
                )
            target.copy_(self._external(name, state[full].to(target.device, target.dtype)))

    def parts(self, candidate: int) -> Iterator[tuple[str, Tensor, tuple[int | slice, ...]]]:
        """A candidate's tensors, then its buffers, as the optimizer has them: name, whole tensor, index of its part."""
        row = self._row_of.get(candidate)
        if row is None:
            return
        for held, shapes in ((self.tensors, self._shapes[row]), (self.buffers, self._buffer_shapes[row])):
            for name, tensor in held.items():
                yield f"{self.key}.{name}", tensor, (row, *(slice(0, size) for size in shapes[name]))

    def _unpadded(self, name: str, row: int) -> Tensor:
        is_buffer = name in self.buffers
        shape = (self._buffer_shapes if is_buffer else self._shapes)[row][name]
        values: Tensor = self.buffers[name] if is_buffer else self.tensors[name]
        return values.detach()[row][tuple(slice(0, size) for size in shape)]

    def _external(self, name: str, value: Tensor) -> Tensor:
        return value.t().contiguous() if name in self._transposed else value


def _stack_padded(values: Sequence[Tensor]) -> Tensor:
    """Stack tensors of equal rank, padded with zeros to the largest size of each axis."""
    shape = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
    stacked = torch.zeros(len(values), *shape, dtype=values[0].dtype)
    for row, value in zip(stacked, values, strict=True):
        row[tuple(slice(0, size) for size in value.shape)] = value.detach()
    return stacked
