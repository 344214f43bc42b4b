"""`autopeft.load` loads every form, on any way of naming the backbone, and refuses another one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import autopeft
from autopeft.backbones import load_backbone
from autopeft.exceptions import BackboneError, NotFoundError
from autopeft.export import FORMS
from autopeft.export._folder import write_record
from autopeft.export._trained import TrainedModel
from tests.export.test_ladder import EXACT, logits
from tests.export.trained import PAIRS, TEXTS, trained_model
from tests.tiny import tiny_folder

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def exported(folder: Path, model: TrainedModel, form: str) -> Path:
    """What an export writes, as far as loading needs it."""
    folder.mkdir()
    FORMS[form].write(model, folder)
    model.save_tokenizer(folder)
    backbone = {
        "name": model.base,
        "source": model.base,
        "loaded_from": model.base,
        "content_hash": model.backbone.content_hash,
        "model_kwargs": model.model_kwargs,
    }
    write_record(folder, {"form": form, "backbone": backbone})
    return folder


@pytest.mark.parametrize("name", ["lora", "uniform prefix", "adapters"])
def test_every_form_by_default(tmp_path: Path, name: str) -> None:
    model = trained_model(tmp_path / "base", "gpt2", name)
    for form in EXACT[name]:
        folder = exported(tmp_path / form, model, form)
        found = autopeft.load(folder)
        torch.testing.assert_close(logits(found, folder), model.logits(TEXTS, PAIRS), atol=1e-5, rtol=1e-5)
        assert found.config.id2label == {0: "bad", 1: "fine", 2: "good"}
        assert not found.training


def test_backbones_by_folder_object_and_ready_model(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "bert", "adapters")
    folder = exported(tmp_path / "own", model, "own")
    expected = model.logits(TEXTS, PAIRS)
    ready = transformers.AutoModelForSequenceClassification.from_pretrained(model.base, num_labels=3)
    for backbone in (model.base, load_backbone(model.base, n_labels=3, dtype=torch.float32), ready):
        found = autopeft.load(str(folder), backbone)
        torch.testing.assert_close(logits(found, folder), expected, atol=1e-5, rtol=1e-5)


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "bert", "lora")
    folder = exported(tmp_path / "lora", model, "lora")
    tiny_folder(tmp_path / "other", "bert", seed=1)
    with pytest.raises(BackboneError, match="another backbone"):
        autopeft.load(folder, tmp_path / "other")
    two = transformers.AutoModelForSequenceClassification.from_pretrained(model.base, num_labels=2)
    with pytest.raises(BackboneError, match="num_labels=3"):
        autopeft.load(folder, two)


def test_a_folder_without_an_export_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"autopeft\.json"):
        autopeft.load(tmp_path)
