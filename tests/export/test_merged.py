"""Merged weights: everything else in the checkpoint stays as it was, and labels are in its configuration."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from autopeft.export import _merged
from tests.export.trained import trained_model


def test_only_what_was_tuned_changes(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "bert", "lora")
    before = {name: value.clone() for name, value in model.backbone.model.state_dict().items()}
    config = model.backbone.model.config
    _merged.write(model, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    layer = "bert.encoder.layer"
    assert changed == {
        f"{layer}.0.attention.self.query.weight",
        f"{layer}.0.attention.self.value.weight",
        f"{layer}.1.attention.self.key.weight",
        f"{layer}.2.output.dense.weight",
        "classifier.weight",
        "classifier.bias",
    }
    assert model.backbone.model.config is config
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.model.state_dict().items())


def test_the_configuration_has_labels_precision_and_padding(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "gpt2", "head only")
    _merged.write(model, tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == {0: "bad", 1: "fine", 2: "good"}
    assert config.label2id == {"bad": 0, "fine": 1, "good": 2}
    assert config.problem_type == "single_label_classification"
    assert config.dtype == torch.float32
    assert config.pad_token_id == model.backbone.pad_token_id
