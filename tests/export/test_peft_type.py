"""peft's own machinery around the registered type: saving, loading, disabling, moving, training, refusing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from autopeft.exceptions import ConfigurationError, UsageError
from autopeft.export import _own, peft_type
from autopeft.export._trained import TrainedModel, batches
from tests.export.trained import TEXTS, trained_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def base_of(model: TrainedModel, **kwargs: Any) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        model.base, **{"dtype": torch.float32, **model.model_kwargs, **kwargs}
    )


def outputs(found: Any, model: TrainedModel) -> Tensor:
    ((rows, batch),) = batches(model.backbone.tokenizer, TEXTS, None, 32)
    result = torch.empty(len(TEXTS), model.backbone.n_labels)
    result[rows] = found(**batch).logits.detach().float()
    return result


@pytest.fixture
def exported(tmp_path: Path) -> tuple[TrainedModel, Path]:
    model = trained_model(tmp_path / "base", "bert", "adapters")
    folder = tmp_path / "own"
    folder.mkdir()
    _own.write(model, folder)
    return model, folder


def test_registering_twice_does_nothing_and_the_member_pickles() -> None:
    peft_type.register()
    member = peft.PeftType("AUTOPEFT")
    assert pickle.loads(pickle.dumps(member)) is member
    assert peft.PeftType.AUTOPEFT is member
    assert member in list(peft.PeftType)


def test_saved_by_peft_and_loaded_again(exported: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    model, folder = exported
    first = peft.PeftModel.from_pretrained(base_of(model), folder).eval()
    first.save_pretrained(tmp_path / "again")
    second = peft.PeftModel.from_pretrained(base_of(model), tmp_path / "again").eval()
    assert torch.equal(outputs(second, model), outputs(first, model))


@pytest.mark.parametrize("options", [{"low_cpu_mem_usage": True}, {"adapter_name": "mine"}])
def test_peft_loading_options(exported: tuple[TrainedModel, Path], options: dict[str, Any]) -> None:
    model, folder = exported
    found = peft.PeftModel.from_pretrained(base_of(model), folder, **options).eval()
    torch.testing.assert_close(outputs(found, model), model.logits(TEXTS), atol=1e-5, rtol=1e-5)


def test_disabled_it_is_the_plain_model_and_enabled_again_the_trained_one(exported: tuple[TrainedModel, Path]) -> None:
    model, folder = exported
    base = base_of(model)
    plain = outputs(base.eval(), model)
    found = peft.PeftModel.from_pretrained(base, folder).eval()
    trained = outputs(found, model)
    assert (trained - plain).abs().max() > 0.01
    assert found.get_model_status().enabled is True
    with found.disable_adapter():
        assert torch.equal(outputs(found, model), plain)
        assert found.get_model_status().enabled is False
    assert torch.equal(outputs(found, model), trained)
    assert torch.equal(outputs(found.unload().eval(), model), plain)


def test_the_uniform_prefix_shifts_positions_by_itself(tmp_path: Path) -> None:
    model = trained_model(tmp_path / "base", "roberta", "uniform prefix")
    _own.write(model, tmp_path)
    found = peft.PeftModel.from_pretrained(base_of(model), tmp_path).eval()
    torch.testing.assert_close(outputs(found, model), model.logits(TEXTS), atol=1e-5, rtol=1e-5)


def test_it_follows_the_model_to_another_precision(exported: tuple[TrainedModel, Path]) -> None:
    model, folder = exported
    found = peft.PeftModel.from_pretrained(base_of(model), folder).eval().to(torch.bfloat16)
    torch.testing.assert_close(outputs(found, model), model.logits(TEXTS), atol=0.1, rtol=0.1)


def test_it_can_be_trained_further(exported: tuple[TrainedModel, Path]) -> None:
    model, folder = exported
    found = peft.PeftModel.from_pretrained(base_of(model), folder, is_trainable=True)
    trainable = {name: p for name, p in found.named_parameters() if p.requires_grad}
    assert trainable
    assert all("autopeft_" in name for name in trainable)
    before = outputs(found.eval(), model)
    ((_, batch),) = batches(model.backbone.tokenizer, TEXTS, None, 32)
    found(**batch, labels=torch.zeros(len(TEXTS), dtype=torch.int64)).loss.backward()
    assert all(p.grad is not None for p in trainable.values())
    torch.optim.SGD(trainable.values(), lr=0.5).step()
    assert (outputs(found, model) - before).abs().max() > 1e-3


def test_a_frozen_adapter_has_no_trainable_parameter(exported: tuple[TrainedModel, Path]) -> None:
    model, folder = exported
    found = peft.PeftModel.from_pretrained(base_of(model), folder)
    assert not any(p.requires_grad for p in found.parameters())


def test_refusals(exported: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    model, folder = exported
    two = transformers.AutoModelForSequenceClassification.from_pretrained(model.base, num_labels=2)
    with pytest.raises(ConfigurationError, match="num_labels=3"):
        peft.PeftModel.from_pretrained(two, folder)
    found = peft.PeftModel.from_pretrained(base_of(model), folder)
    with pytest.raises(ValueError, match="--as merged"):
        found.merge_and_unload()
    with pytest.raises(ValueError, match="one autopeft adapter"):
        found.load_adapter(folder, "second")
    with pytest.raises(UsageError, match="pip install --upgrade autopeft"):
        peft_type.AutoPeftConfig(format_version=99)


def test_a_missing_tensor_is_an_error_not_silence(exported: tuple[TrainedModel, Path]) -> None:
    from safetensors.torch import load_file, save_file

    model, folder = exported
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors["base_model.autopeft_.layers.0.q.lora.A"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"layers\.0\.q\.lora\.A"):
        peft.PeftModel.from_pretrained(base_of(model), folder)
