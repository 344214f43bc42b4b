"""Plain LoRA: what is written, and that loaders which know less than peft are right too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from autopeft.export import _lora
from tests.export.trained import PAIRS, TEXTS, trained_model

ARCHITECTURES = ("bert", "gpt2", "llama")


def naive_model(base: str, folder: Path, **kwargs: Any) -> Any:
    """A loader that knows only ``r`` and ``lora_alpha``: W + alpha / r * B A, patterns and paths left unread."""
    config = json.loads((folder / "adapter_config.json").read_text())
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, **kwargs)
    tensors = load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        for name, b in tensors.items():
            path = name.removeprefix("base_model.model.")
            if path.endswith(".lora_B.weight"):
                a = tensors[name.replace("lora_B", "lora_A")]
                change = config["lora_alpha"] / config["r"] * b @ a
                weight = model.get_parameter(path.replace(".lora_B.weight", ".weight"))
                weight += change.T if config["fan_in_fan_out"] else change
            elif ".lora_A." not in path:
                model.get_parameter(path).copy_(b)
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_loader_that_ignores_the_patterns_is_right_too(tmp_path: Path, architecture: str) -> None:
    model = trained_model(tmp_path / "base", architecture, "lora")
    _lora.write(model, tmp_path)
    model.save_tokenizer(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(list(TEXTS), list(PAIRS), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = naive_model(model.base, tmp_path, **model.model_kwargs)(**inputs).logits
    torch.testing.assert_close(found, model.logits(TEXTS, PAIRS), atol=1e-5, rtol=1e-5)


def test_the_configuration_names_each_module_with_its_rank(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "bert", "lora")
    _lora.write(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    layer = "bert.encoder.layer"
    ranks = {
        f"{layer}.0.attention.self.query": 3,
        f"{layer}.0.attention.self.value": 1,
        f"{layer}.1.attention.self.key": 2,
    }
    assert config["r"] == config["lora_alpha"] == 4
    assert config["rank_pattern"] == config["alpha_pattern"] == ranks
    assert set(config["target_modules"]) == {*ranks, f"{layer}.2.output.dense"}
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["classifier"]
    assert config["fan_in_fan_out"] is False
    assert config["base_model_name_or_path"] == model.base


def test_parts_of_a_fused_linear_become_one_block_structured_lora(tmp_path: Path) -> None:
    """GPT-2's c_attn: q of rank 3 and v of rank 1 (scale 4) are one LoRA of rank 4 that leaves k alone."""
    model = trained_model(tmp_path / "base", "gpt2", "lora")
    a, b = _lora.low_rank_updates(model)["transformer.h.0.attn.c_attn"]
    width = model.backbone.shapes.hidden_size
    assert a.shape == (4, width)
    assert b.shape == (3 * width, 4)
    change: Tensor = b @ a
    q, v = model.tensors(0, "q", "lora"), model.tensors(0, "v", "lora")
    torch.testing.assert_close(change[:width], 2.0 * q["B"] @ q["A"])
    assert not change[width : 2 * width].any()
    torch.testing.assert_close(change[2 * width :], 4.0 * v["B"] @ v["A"])
    _lora.write(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True
    assert config["modules_to_save"] == ["score"]
