"""What is exported: logits, labels, and a tokenizer that does in stock hands what training did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from autopeft.export._trained import TrainedModel, batches
from autopeft.modules import inject
from tests.export.trained import PAIRS, TEXTS, configuration, trained_model
from tests.tiny import tiny_backbone, tiny_tokenizer


def test_logits_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Oracle: one text at a time, in its own order."""
    model = trained_model(tmp_path / "base", "gpt2", "adapters")
    together = model.logits(TEXTS, PAIRS)
    alone = [model.logits([text], [pair]) for text, pair in zip(TEXTS, PAIRS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_backbone_is_left_as_it_was(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "bert", "adapters")
    before = trained_model(tmp_path / "base", "bert", "head only").logits(TEXTS)
    model.logits(TEXTS)
    plain = TrainedModel(
        backbone=model.backbone,
        configuration=configuration("head only"),
        state={name: value for name, value in model.state.items() if name.startswith("head.")},
        label_names=model.label_names,
        max_tokens=32,
        base=model.base,
    )
    assert plain.logits(TEXTS).shape == before.shape
    with inject(model.backbone, [configuration("head only")], seeds=[0]) as injection:
        assert injection.candidate_parameter_count(0) == 0


def test_only_float32_backbones_are_exported() -> None:
    backbone = tiny_backbone("bert", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="float32"):
        TrainedModel(
            backbone=backbone,
            configuration=configuration("head only"),
            state={},
            label_names=None,
            max_tokens=32,
            base="there",
        )


def test_batches_pad_on_the_right_and_truncate(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bert")
    tokenizer.padding_side = "left"
    ((rows, batch),) = batches(tokenizer, ["a good file " * 20, "bad"], None, 8)
    assert rows == [1, 0]
    assert batch["attention_mask"].sum(1).tolist() == [3, 8]
    assert batch["input_ids"][0, 3:].eq(tokenizer.pad_token_id).all()


def test_the_saved_tokenizer_pads_truncates_and_segments_as_training_did(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "gpt2", "lora")
    # A tokenizer that gives segments to a model that would add them up as tokens.
    model.backbone.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    model.backbone.tokenizer.padding_side = "left"
    model.save_tokenizer(tmp_path)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    encoded = saved(["a good file " * 20, "bad"], padding=True, truncation=True)
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert len(encoded["input_ids"][0]) == model.max_tokens
    assert encoded["attention_mask"][1][0] == 1
    assert encoded["attention_mask"][1][-1] == 0
    assert model.backbone.tokenizer.padding_side == "left", "the backbone's own tokenizer is left alone"


def test_what_a_loader_must_be_told(tmp_path: Path) -> None:
    bert = trained_model(tmp_path / "bert", "bert", "lora").model_kwargs
    assert bert == {
        "num_labels": 3,
        "id2label": {0: "bad", 1: "fine", 2: "good"},
        "label2id": {"bad": 0, "fine": 1, "good": 2},
    }
    gpt2 = trained_model(tmp_path / "gpt2", "gpt2", "lora", n_labels=1)
    assert gpt2.model_kwargs == {"num_labels": 1, "pad_token_id": 0}
    assert gpt2.model_config().problem_type == "regression"
