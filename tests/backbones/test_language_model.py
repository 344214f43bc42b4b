from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from autopeft.backbones import (
    Backbone,
    load_backbone,
    load_language_head,
    missing_language_head,
    no_language_head,
    wrap_model,
)
from autopeft.exceptions import BackboneError
from tests.tiny import ARCHITECTURES, DECODERS, PAD, tiny_batch, tiny_config, tiny_model, tiny_tokenizer


def language_model(folder: Path, architecture: str, *, is_tied: bool = True):
    """A pretrained language model as it lies on the hub, with its head."""
    config = tiny_config(architecture, tie_word_embeddings=is_tied)
    kind = AutoModelForCausalLM if architecture in DECODERS else AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind.from_config(config, attn_implementation="sdpa").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny_tokenizer(architecture).save_pretrained(folder)
    return model


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    return load_backbone(str(folder), n_labels=2, dtype=dtype)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_transformers_own(tmp_path: Path, architecture: str, is_tied: bool) -> None:
    model = language_model(tmp_path, architecture, is_tied=is_tied)
    assert missing_language_head(str(tmp_path)) == ()
    head = load_language_head(loaded(tmp_path))
    batch = tiny_batch()
    mask = batch["attention_mask"].bool()
    with torch.inference_mode():
        expected = model(**batch).logits[mask]
    torch.testing.assert_close(head.logits(**batch)[mask], expected, rtol=1e-4, atol=1e-4)
    # A second call sees the second batch.
    other = tiny_batch(seed=3)
    with torch.inference_mode():
        expected = model(**other).logits[mask]
    torch.testing.assert_close(head.logits(**other)[mask], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra", "llama"])
def test_checkpoint_of_the_base_model_lacks_the_head(tmp_path: Path, architecture: str) -> None:
    tiny_model(architecture, tie_word_embeddings=False).base_model.save_pretrained(tmp_path)
    tiny_tokenizer(architecture).save_pretrained(tmp_path)
    missing = missing_language_head(str(tmp_path))
    assert missing
    with pytest.raises(BackboneError, match=r"has no language-model head.*are missing from its checkpoint"):
        load_language_head(loaded(tmp_path))
    assert "Take a backbone with its pretraining head" in no_language_head("x", missing)


def test_tied_decoder_needs_no_head_of_its_own(tmp_path: Path) -> None:
    tiny_model("gpt2").base_model.save_pretrained(tmp_path)
    tiny_tokenizer("gpt2").save_pretrained(tmp_path)
    assert missing_language_head(str(tmp_path)) == ()
    load_language_head(loaded(tmp_path))


def test_minilm_was_not_kept_with_its_head() -> None:
    assert "cls.predictions.transform.dense.weight" in (missing_language_head("minilm") or ())


def test_head_reads_what_hooks_have_made_of_the_backbone(tmp_path: Path) -> None:
    language_model(tmp_path, "bert")
    backbone = loaded(tmp_path)
    head, batch = load_language_head(backbone), tiny_batch()
    before = head.logits(**batch)
    handle = backbone.layers[-1].register_forward_hook(lambda _, __, out: out + 1.0)
    changed = head.logits(**batch)
    handle.remove()
    assert not torch.allclose(changed, before)
    assert torch.equal(head.logits(**batch), before)
    assert len(backbone.model.base_model._forward_hooks) == 0


def test_head_is_float32_over_a_bfloat16_backbone(tmp_path: Path) -> None:
    model = language_model(tmp_path, "bert")
    batch = tiny_batch()
    logits = load_language_head(loaded(tmp_path, torch.bfloat16)).logits(**batch)
    assert logits.dtype == torch.float32
    mask = batch["attention_mask"].bool()
    with torch.inference_mode():
        torch.testing.assert_close(logits[mask], model(**batch).logits[mask], rtol=0.1, atol=0.2)


def test_wrapped_model_has_no_checkpoint() -> None:
    with pytest.raises(BackboneError, match="a wrapped model has no checkpoint"):
        load_language_head(wrap_model(tiny_model("bert"), tiny_tokenizer("bert")))


def test_padding_does_not_reach_the_logits(tmp_path: Path) -> None:
    language_model(tmp_path, "bert")
    head, batch = load_language_head(loaded(tmp_path)), tiny_batch()
    row = 1
    n = int(batch["attention_mask"][row].sum())
    assert int(batch["input_ids"][row, -1]) == PAD or n < batch["input_ids"].shape[1]
    alone = head.logits(batch["input_ids"][row : row + 1, :n], batch["attention_mask"][row : row + 1, :n])
    torch.testing.assert_close(head.logits(**batch)[row, :n], alone[0], rtol=1e-4, atol=1e-4)
