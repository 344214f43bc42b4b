"""Native peft methods: what is written into their configurations."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from autopeft.export import _native
from tests.export.trained import N_LAYERS, trained_model


def written(folder: Path) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def test_a_uniform_prefix_becomes_prefix_tuning_with_grouped_heads(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "llama", "uniform prefix")
    _native.write(model, tmp_path)
    config, tensors = written(tmp_path)
    layer = model.backbone.shapes.layers[0]
    width = layer.n_kv_heads * layer.head_size
    assert width < model.backbone.shapes.hidden_size
    assert config["peft_type"] == "PREFIX_TUNING"
    assert config["num_virtual_tokens"] == 3
    assert config["token_dim"] == width
    assert config["num_attention_heads"] == layer.n_kv_heads
    assert tensors["prompt_embeddings"].shape == (3, N_LAYERS * 2 * width)
    # Position 1, layer 2, values, head 1: peft's order spelled out.
    values = model.tensors(2, "attention", "prefix")["values"]
    start = (2 * 2 + 1) * width + layer.head_size
    row = tensors["prompt_embeddings"][1, start : start + layer.head_size]
    assert torch.equal(row, values[1, 1])


def test_scales_on_a_fused_linear_leave_its_other_parts_alone(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "gpt2", "ia3")
    _native.write(model, tmp_path)
    config, tensors = written(tmp_path)
    width = model.backbone.shapes.hidden_size
    scale = tensors["base_model.model.transformer.h.0.attn.c_attn.ia3_l"]
    assert scale.shape == (3 * width, 1)
    assert torch.equal(scale[width : 2 * width, 0], model.tensors(0, "k", "ia3")["scale"])
    assert scale[:width].eq(1).all()
    assert scale[2 * width :].eq(1).all()
    assert config["feedforward_modules"] == ["transformer.h.2.mlp.c_proj"]
    assert config["fan_in_fan_out"] is True
