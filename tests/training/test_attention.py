from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.training._attention import _FastAttention, fast_attention
from tests.tiny import ARCHITECTURES, tiny_backbone, tiny_batch


def tensors(rows=3, heads=4, kv_heads=4, n_queries=7, n_keys=7, width=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads, n_queries), (kv_heads, n_keys), (kv_heads, n_keys))
    # (rows, t, heads, width), transposed: the layout in which transformers gives them.
    return [
        torch.randn(rows, t, h, width, generator=generator).to(dtype).transpose(1, 2).requires_grad_()
        for h, t in shapes
    ]


def masks(n_queries, n_keys):
    visible = torch.arange(n_keys) < torch.tensor([n_keys, n_keys - 2, 1])[:, None]
    padding = visible[:, None, None].expand(3, 1, n_queries, n_keys)
    causal = torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries) & padding
    additive = torch.zeros(3, 1, n_queries, n_keys).masked_fill(~causal, torch.finfo(torch.float32).min)
    return {"none": None, "padding": padding, "causal": causal, "additive": additive}


@pytest.mark.parametrize("kind", ["none", "padding", "causal", "additive"])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(7, 7), (16, 16), (1, 7), (7, 12), (33, 33)])
def test_output_and_gradients_equal_torchs_attention(kind, n_queries, n_keys):
    # Oracle: torch.nn.functional.scaled_dot_product_attention.
    query, key, value = tensors(n_queries=n_queries, n_keys=n_keys)
    mask = masks(n_queries, n_keys)[kind]
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)
    got, _ = _FastAttention()(nn.Identity(), query, key, value, mask, scaling=0.3, is_causal=False)
    assert got.shape == expected.shape
    assert got.is_contiguous()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    reference = torch.autograd.grad(expected, (query, key, value), weight)
    for mine, its in zip(torch.autograd.grad(got, (query, key, value), weight), reference, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_causal_without_a_mask():
    query, key, value = tensors()
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    got, _ = _FastAttention()(nn.Identity(), query, key, value, None, is_causal=True)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_grouped_keys_and_values():
    query, key, value = tensors(kv_heads=2)
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True).transpose(1, 2)
    got, _ = _FastAttention()(nn.Identity(), query, key, value, None, is_causal=False)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_closer_to_the_truth_than_bfloat16_arithmetic():
    query, key, value = tensors(dtype=torch.bfloat16)
    truth = F.scaled_dot_product_attention(*(x.double() for x in (query, key, value))).transpose(1, 2)
    got, _ = _FastAttention()(nn.Identity(), query, key, value, None, is_causal=False)
    assert got.dtype is torch.bfloat16
    # Nothing but the rounding of the result: half a unit in the eighth significant bit.
    torch.testing.assert_close(got.double(), truth, rtol=2**-8, atol=1e-5)


def test_the_same_mask_is_converted_once_and_another_is_not_mistaken_for_it():
    attention = _FastAttention()
    query, key, value = tensors()
    for kind in ("padding", "causal", "padding"):
        mask = masks(7, 7)[kind]
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
        for _ in range(2):
            got, _ = attention(nn.Identity(), query, key, value, mask)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_same_logits(architecture):
    # Oracle: the model with transformers' own sdpa.
    backbone, batch = tiny_backbone(architecture), tiny_batch(rows=5)
    expected = backbone.forward(**batch)
    with fast_attention(torch.device("cpu")):
        got = backbone.forward(**batch)
        assert isinstance(ALL_ATTENTION_FUNCTIONS["sdpa"], _FastAttention)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(backbone.forward(**batch), expected)


def test_other_devices_and_nested_use_restore_what_was_there():
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with fast_attention(torch.device("meta")):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    with fast_attention(torch.device("cpu")):
        outer = ALL_ATTENTION_FUNCTIONS["sdpa"]
        with fast_attention(torch.device("cpu")):
            pass
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is outer
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
