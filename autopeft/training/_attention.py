"""Attention for short sequences on a CPU, where torch's fused kernel is many times slower than its parts.

The fused CPU kernel works in blocks made for long sequences: at 15 tokens its bfloat16 backward pass takes 20 times as
long as the plain products. Within `fast_attention`, transformers' ``sdpa`` is computed from batched products in float32
(more exact than bfloat16 and, at these sizes, not slower). Elsewhere nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

#: Beyond so many keys the scores would take too much memory, and the fused kernel is at its best.
_MAX_KEYS = 512
#: Keys are padded to a multiple of a vector register's float32 values: torch's softmax over 15 values takes 10 times as
#: long as over 16.
_ALIGNMENT = 16
_NEVER = torch.finfo(torch.float32).min


@contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """Within the block, ``sdpa`` attention is computed the way that is fastest on the device."""
    if device.type != "cpu":
        yield
        return
    local = ALL_ATTENTION_FUNCTIONS._local_mapping
    before = local.get("sdpa")
    local["sdpa"] = _FastAttention()
    try:
        yield
    finally:
        if before is None:
            del local["sdpa"]
        else:
            local["sdpa"] = before


class _FastAttention:
    """A transformers attention function; tensors are (rows, heads, t, head size)."""

    def __init__(self) -> None:
        # All layers of a pass get the same mask: its additive form is made once.
        self._mask: Tensor | None = None
        self._bias: Tensor | None = None

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        is_plain = dropout == 0.0 and not any(
            kwargs.get(name) is not None for name in ("position_bias", "softcap", "cache")
        )
        if not is_plain or key.shape[2] > _MAX_KEYS or query.dtype not in (torch.float32, torch.bfloat16):
            return sdpa_attention_forward(
                module, query, key, value, attention_mask,
                dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs,
            )  # fmt: skip
        if key.shape[1] < query.shape[1]:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        if attention_mask is None and query.shape[2] > 1:
            causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
            bias = _causal_bias(query.shape[2], key.shape[2]) if causal else None
        else:
            bias = self._bias_of(attention_mask)
        bias = _padding_bias(key.shape[2]) if bias is None else bias
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return _Attention.apply(query, key, value, bias, scale), None

    def _bias_of(self, mask: Tensor | None) -> Tensor | None:
        if mask is not self._mask:
            self._mask, self._bias = mask, None if mask is None else _additive(mask)
        return self._bias


def _additive(mask: Tensor) -> Tensor:
    """A boolean (True: attend) or additive mask (rows, heads, queries, keys) as a float32 bias over padded keys."""
    if mask.stride(2) == 0:
        mask = mask[:, :, :1]
    bias = torch.full((*mask.shape[:3], _aligned(mask.shape[3])), _NEVER)
    target = bias[..., : mask.shape[3]]
    if mask.dtype == torch.bool:
        target.masked_fill_(mask, 0.0)
    else:
        target.copy_(mask)
    return bias


def _causal_bias(n_queries: int, n_keys: int) -> Tensor:
    return _additive(torch.ones(n_queries, n_keys, dtype=torch.bool).tril()[None, None])


def _padding_bias(n_keys: int) -> Tensor | None:
    return None if n_keys % _ALIGNMENT == 0 else _additive(torch.ones(1, 1, 1, n_keys, dtype=torch.bool))


def _aligned(n_keys: int) -> int:
    return -(-n_keys // _ALIGNMENT) * _ALIGNMENT


class _Attention(torch.autograd.Function):
    r"""softmax(s Q K^T + bias) V in float32, back in the inputs' dtype as (rows, t, heads, head size)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        n_keys = _aligned(key.shape[2])
        q, k, v = _flat(query, query.shape[2]), _flat(key, n_keys), _flat(value, n_keys)
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)  # rows * heads, queries, padded keys
        if bias is not None:
            scores.view(*query.shape[:3], n_keys).add_(bias)
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale, ctx.shapes, ctx.dtype = scale, (query.shape, key.shape), query.dtype
        return _merged(torch.bmm(weights, v), query.shape, query.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        query_shape, key_shape = ctx.shapes
        output = _flat(gradients[0].transpose(1, 2), query_shape[2])
        needs_query, needs_key, needs_value = ctx.needs_input_grad[:3]
        query = key = value = None
        if needs_value:
            value = _merged(torch.bmm(weights.transpose(1, 2), output), key_shape, ctx.dtype).transpose(1, 2)
        if needs_query or needs_key:
            scores = torch.bmm(output, v.transpose(1, 2))
            scores = torch._softmax_backward_data(scores, weights, -1, torch.float32).mul_(ctx.scale)
            if needs_query:
                query = _merged(torch.bmm(scores, k), query_shape, ctx.dtype).transpose(1, 2)
            if needs_key:
                key = _merged(torch.bmm(scores.transpose(1, 2), q), key_shape, ctx.dtype).transpose(1, 2)
        return query, key, value, None, None


def _flat(states: Tensor, length: int) -> Tensor:
    """(rows, heads, t, h) of any layout -> (rows * heads, length, h), contiguous, float32, zeros after t."""
    rows, heads, t, width = states.shape
    flat = torch.empty(rows, heads, length, width)
    flat[:, :, :t].copy_(states)
    if length > t:
        flat[:, :, t:].zero_()
    return flat.view(rows * heads, length, width)


def _merged(states: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """(rows * heads, t or more, h) -> (rows, t, heads, h), contiguous: the layout of the projections."""
    rows, heads, t, width = shape
    merged = torch.empty(rows, t, heads, width, dtype=dtype)
    merged.copy_(states.view(rows, heads, -1, width)[:, :, :t].transpose(1, 2))
    return merged
