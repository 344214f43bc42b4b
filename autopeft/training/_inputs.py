"""Batches as tensors: gathered from flat arrays that stay on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autopeft.training._tokens import TokenizedSplit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """One batch on the device.

    Args:
        input_ids: Shape (rows, t), padded on the right.
        attention_mask: 1 at tokens, 0 at padding, shape (rows, t).
        token_type_ids: Segments, shape (rows, t); None where the tokenizer gives none.
        token_index: Place of each token in the flat split, shape (rows, t); padding has the split's total.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    token_index: Tensor

    def first_token(self) -> Inputs:
        """The same rows, cut down to their first token."""
        return Inputs(
            input_ids=self.input_ids[:, :1],
            attention_mask=self.attention_mask[:, :1],
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[:, :1],
            token_index=self.token_index[:, :1],
        )


class ResidentSplit:
    """A tokenised split on the device.

    Args:
        name: ``"train"``, ``"search"`` or ``"report"``.
        tokens: The split.
        pad_token_id: Id that fills the rows.
        device: Where batches are wanted.
    """

    def __init__(self, name: str, tokens: TokenizedSplit, pad_token_id: int, device: torch.device) -> None:
        self.name = name
        self.tokens = tokens
        self.lengths = tokens.lengths
        self._total = len(tokens.token_ids)
        self._ids = torch.from_numpy(np.append(tokens.token_ids, pad_token_id).astype(np.int64)).to(device)
        self._types = (
            None
            if tokens.type_ids is None
            else torch.from_numpy(np.append(tokens.type_ids, 0).astype(np.int64)).to(device)
        )
        self._starts = torch.from_numpy(tokens.offsets[:-1].copy()).to(device)
        self._lengths = torch.from_numpy(self.lengths).to(device)
        targets = torch.from_numpy(np.array(tokens.targets))
        self._targets = (targets.float() if targets.is_floating_point() else targets).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self.tokens)

    def inputs(self, rows: npt.NDArray[np.int64], length: int) -> Inputs:
        """Gather a batch.

        Args:
            rows: Indices of examples, in any order, repetitions allowed, shape (rows,).
            length: Tokens per row, at least those of the longest example.
        """
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        positions = torch.arange(length, device=self.device)
        is_token = positions < self._lengths[index][:, None]  # rows x t
        token_index = torch.where(is_token, self._starts[index][:, None] + positions, self._total)
        return Inputs(
            input_ids=self._ids[token_index],
            attention_mask=is_token.long(),
            token_type_ids=None if self._types is None else self._types[token_index],
            token_index=token_index,
        )

    def targets(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Targets of examples, shape (rows,), int64 or float32."""
        return self._targets[torch.from_numpy(rows).to(self.device)]
