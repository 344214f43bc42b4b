"""Prefixes. Oracles: peft's prefix tuning after three optimizer steps; attention written out."""

import math

import peft
import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.modules import inject
from tests.modules.cases import configuration, disturb, each, injected, spec, together
from tests.modules.peft_twin import copy_into, head_modules, peft_model, peft_trained_logits, trained_logits
from tests.tiny import tiny_batch

#: Architectures whose peft prefix tuning works: DistilBERT takes no past, and peft's cache ignores sliding windows.
PEFT_ARCHITECTURES = ("bert", "roberta", "electra", "gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("architecture", PEFT_ARCHITECTURES)
def test_uniform_prefix_equals_peft_after_three_steps(backbone_of, architecture, optimizer):
    backbone, length = backbone_of(architecture), 3
    chosen = configuration(*each(range(3), ("attention",), lambda layer: spec("prefix", length)))
    shape = backbone.shapes.layers[0]
    config = peft.PrefixTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=length,
        num_layers=3,
        token_dim=shape.n_kv_heads * shape.head_size,
        num_attention_heads=shape.n_kv_heads,
        modules_to_save=head_modules(backbone),
    )
    model = peft_model(backbone, config)
    rng = torch.Generator().manual_seed(0)
    with inject(backbone, [chosen], seeds=[3]) as injection:
        assert injection.position_offset(0) == length
        initial = {
            key: value if key.startswith("head.") else torch.randn(value.shape, generator=rng)
            for key, value in injection.state_dict(0).items()
        }
    # peft: one row per position with (layer, keys then values, head, head size).
    rows = torch.stack(
        [initial[f"layers.{layer}.attention.prefix.{name}"] for layer in range(3) for name in ("keys", "values")]
    )
    table = rows.permute(2, 0, 1, 3).reshape(length, -1)
    assert copy_into(model, lambda name: table if "prompt_encoder" in name else None) == table.numel()
    _, ours = trained_logits(backbone, chosen, initial, optimizer)
    before = backbone.forward(**tiny_batch())
    theirs = peft_trained_logits(model, optimizer)
    assert (theirs - before).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def _written_out(query, key, value, prefix_keys, prefix_values, visible, scaling):
    """softmax(Q [P_K; K]^T s + mask) [P_V; V], head by head; `visible` is (rows, queries, prefix + keys)."""
    groups = query.shape[1] // key.shape[1]
    out = torch.zeros_like(query)
    for row in range(len(query)):
        for head in range(query.shape[1]):
            keys = torch.cat([prefix_keys[row, head // groups], key[row, head // groups]])
            values = torch.cat([prefix_values[row, head // groups], value[row, head // groups]])
            scores = query[row, head] @ keys.T * scaling
            scores[~visible[row]] = -math.inf
            out[row, head] = scores.softmax(-1) @ values
    return out.transpose(1, 2)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask_kind", ["none", "bool", "float"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_attention_with_prefixes_of_different_lengths(backbone_of, architecture, mask_kind, is_causal):
    """Three candidates with lengths 2, none and 4, two rows each."""
    backbone = backbone_of(architecture)
    module = backbone.attention(1)
    shape = backbone.shapes.layers[1]
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(6, 4, 5, 8, generator=rng)
    key, value = (torch.randn(6, shape.n_kv_heads, 5, 8, generator=rng) for _ in range(2))
    tokens = torch.arange(5) < torch.tensor([5, 3, 4, 5, 2, 5])[:, None]
    body = tokens[:, None, :].expand(6, 5, 5) if mask_kind != "none" else torch.ones(6, 5, 5, dtype=torch.bool)
    if is_causal:
        body = body & torch.ones(5, 5, dtype=torch.bool).tril()
    if mask_kind == "none":
        mask = None
    else:
        mask = body[:, None]
        if mask_kind == "float":
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    chosen = [configuration((1, "attention", spec("prefix", 2))), configuration(),
              configuration((1, "attention", spec("prefix", 4)))]  # fmt: skip
    prefix_keys, prefix_values = torch.zeros(2, 6, shape.n_kv_heads, 4, 8)
    exists = torch.zeros(6, 4, dtype=torch.bool)
    with injected(backbone, *chosen) as injection:
        for candidate, length in ((0, 2), (2, 4)):
            state = injection.state_dict(candidate)
            rows = slice(2 * candidate, 2 * candidate + 2)
            prefix_keys[rows, :, :length] = state["layers.1.attention.prefix.keys"]
            prefix_values[rows, :, :length] = state["layers.1.attention.prefix.values"]
            exists[rows, :length] = True
        function = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation]
        found, _ = function(module, query, key, value, mask, scaling=0.4, is_causal=is_causal)
    visible = torch.cat([exists[:, None].expand(6, 5, 4), body], -1)
    wanted = _written_out(query, key, value, prefix_keys, prefix_values, visible, 0.4)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_other_layers_attend_as_before(bert):
    functions = [layer.attention.self.config for layer in bert.layers]
    with injected(bert, configuration((1, "attention", spec("prefix", 2)))):
        assert bert.attention(0).config is functions[0]
        assert bert.attention(2).config is functions[2]
        assert bert.model.config._attn_implementation == "sdpa"
        assert bert.attention(1).config._attn_implementation != "sdpa"
    assert bert.attention(1).config is functions[1]
    assert bert.attention(1).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("is_padded", [True, False])
def test_prefix_reaches_every_token_whatever_the_mask(backbone_of, architecture, is_padded):
    """With huge values in the prefix and equal keys, every token's attention output moves, the first one's included."""
    backbone = backbone_of(architecture)
    batch = tiny_batch(2, 7)
    if not is_padded:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    outputs = []
    linear = backbone.linear(0, "o")
    handle = linear.module.register_forward_pre_hook(lambda module, args: outputs.append(args[0]))
    try:
        backbone.forward(**batch)
        with inject(backbone, [configuration((0, "attention", spec("prefix", 1)))], seeds=[0]) as injection:
            state = injection.state_dict(0)
            state["layers.0.attention.prefix.values"].fill_(1e4)
            injection.load_state_dict(0, state)
            backbone.forward(**batch)
    finally:
        handle.remove()
    assert (outputs[1] - outputs[0]).abs().amax(-1).min() > 1


@pytest.mark.parametrize(
    ("placed", "offset"),
    [
        (each(range(3), ("attention",), lambda layer: spec("prefix", 4)), 4),
        (each(range(2), ("attention",), lambda layer: spec("prefix", 4)), 0),
        (each(range(3), ("attention",), lambda layer: spec("prefix", layer + 1)), 0),
        ([*each(range(3), ("attention",), lambda layer: spec("prefix", 4)), (0, "bias", spec("bitfit"))], 0),
        (each(range(3), ("q",), lambda layer: spec("lora", 4)), 0),
        ([], 0),
    ],
)
def test_only_a_uniform_prefix_takes_up_positions(bert, placed, offset):
    with inject(bert, [configuration(), configuration(*placed)], seeds=[0, 1]) as injection:
        assert injection.position_offset(0) == 0
        assert injection.position_offset(1) == offset


def test_masks_are_made_once_per_pass(bert):
    """Layers whose prefixes have the same lengths share the extended mask; a new pass makes a new one."""
    chosen = configuration(*each(range(3), ("attention",), lambda layer: spec("prefix", 2)))
    masks = []

    def spy(module, query, key, value, mask, **kwargs):
        masks.append(mask)
        return original(module, query, key, value, mask, **kwargs)

    original = ALL_ATTENTION_FUNCTIONS["sdpa"]
    batch = together([tiny_batch(2, 6, seed=1), tiny_batch(2, 6, seed=2)])
    ALL_ATTENTION_FUNCTIONS["sdpa"] = spy
    try:
        with inject(bert, [chosen], seeds=[0]) as injection:
            disturb(injection)
            first = bert.forward(**batch)
            other = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
            other["attention_mask"][:, -3:] = 0
            second = bert.forward(**other)
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = original
    assert masks[0] is masks[1] is masks[2]
    assert masks[3] is masks[4] is masks[5]
    assert not torch.equal(masks[0], masks[3])
    assert not torch.equal(first, second)
