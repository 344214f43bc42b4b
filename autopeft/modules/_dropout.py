"""Dropout whose masks are a function of where an element is, not of what else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from autopeft.modules._layout import stream_seed
from autopeft.modules._stack import Stack

_MASK_32 = 0xFFFFFFFF


class Dropout:
    """Drops inputs with a rate of each candidate's own.

    Whether an element is dropped depends on the candidate's seed, the step, the site, and the element's row, position
    and feature: a hash of these, not the next number of a generator. So a candidate's masks are the same alone and in
    a cohort, under any padding, on any device, and in micro-batches (given the layout's ``first_row``).

    Args:
        stack: The module's tensors; its owners' seeds and its key name the streams.
        rates: Of each owner, in [0, 1).
    """

    def __init__(self, stack: Stack, rates: Sequence[float]) -> None:
        self._stack = stack
        device = stack.layout.device
        seeds = [stream_seed(stack.layout.seeds[owner], stack.key, "dropout") & _MASK_32 for owner in stack.owners]
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
        # An element is kept if its 32 random bits, as a signed integer, are at least this.
        thresholds = [round(rate * 2**32) - 2**31 for rate in rates]
        self._thresholds = torch.tensor(thresholds, dtype=torch.int64, device=device)
        self._scales = torch.tensor([1 / (1 - rate) for rate in rates], device=device)

    @classmethod
    def make(cls, stack: Stack, rates: Sequence[float]) -> Self | None:
        """Dropout of a stack; None if nobody drops anything."""
        return cls(stack, rates) if any(rates) else None

    def __call__(self, x: Tensor) -> Tensor:
        """Drop and rescale.

        Args:
            x: The active owners' rows, shape (k, rows, ..., h).

        Returns:
            The same shape and dtype.
        """
        layout = self._stack.layout
        with torch.no_grad():
            rows = layout.index(self._stack.rows)
            keys = _mix(_to_int32(self._seeds[rows] + layout.step * 0x9E3779B9))
            keep = random_bits(keys, x.shape[1:], layout.first_row) >= _shape(self._thresholds[rows], x).int()
            factor = keep.to(x.dtype) * _shape(self._scales[rows], x).to(x.dtype)
        return x * factor


def random_bits(keys: Tensor, shape: torch.Size, first_row: int = 0) -> Tensor:
    """32 random bits for every place of a batch.

    Args:
        keys: One stream each, int32, shape (k,).
        shape: (rows, ..., features) of a stream.
        first_row: Index of the first row.

    Returns:
        Int32, shape (k, rows, ..., features); the bits at (row, position, feature) do not depend on `shape`.
    """
    device = keys.device
    bits = keys
    for axis, size in enumerate(shape):
        places = torch.arange(size, dtype=torch.int64, device=device) + (first_row if axis == 0 else 0)
        # Odd multipliers far apart: neighbours along different axes must not meet.
        steps = _to_int32((places + 1) * (0x85EBCA6B + 0x3C6EF372 * axis | 1))
        bits = _mix(bits.unsqueeze(-1) + steps)
    return bits


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers with good avalanche ("lowbias32" by Chris Wellons); changes `x` in place."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x ^= (x >> shift) & (_MASK_32 >> shift)
        x *= factor
    x ^= (x >> 16) & 0xFFFF
    return x


def _to_int32(x: Tensor) -> Tensor:
    """The low 32 bits of int64, as a signed integer."""
    return ((x + 2**31) & _MASK_32).sub_(2**31).to(torch.int32)


def _shape(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.dim() - 1))
