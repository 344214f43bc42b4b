import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, BertForMaskedLM
from transformers.utils import logging as transformers_logging

from autopeft.backbones import BACKBONES, describe_backbone, load_backbone
from autopeft.exceptions import BackboneError
from tests import tiny


def _load(folder: Path, **changes: Any) -> Any:
    return load_backbone(str(folder), **{"n_labels": 3, "dtype": torch.float32, **changes})


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_description_counts_what_is_loaded(architecture: str, tmp_path: Path) -> None:
    folder = tiny.tiny_folder(tmp_path, architecture)
    described, loaded = describe_backbone(str(folder)), _load(folder)
    assert described.shapes == loaded.shapes
    assert (described.name, described.source) == (loaded.name, loaded.source) == (str(folder), str(folder))
    assert described.architecture == loaded.architecture == architecture
    # Oracle: the model without a head, loaded by transformers alone; RoBERTa's and the like have no pooler then.
    headless = AutoModel.from_pretrained(folder)
    named = {key: item.numel() for key, item in headless.named_parameters()}
    if architecture == "roberta":
        named = {key: size for key, size in named.items() if not key.startswith("pooler")}
    assert loaded.shapes.parameters == sum(named.values())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_loaded_model_is_the_stock_model_with_our_head(architecture: str, tmp_path: Path) -> None:
    """Oracle: transformers' own loading of the same folder."""
    folder = tiny.tiny_folder(tmp_path, architecture)
    backbone, batch = _load(folder), tiny.tiny_batch()
    stock = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    incompatible = stock.load_state_dict(backbone.head_state(), strict=False)
    assert incompatible.unexpected_keys == []
    assert torch.equal(backbone.forward(**batch), stock(**batch).logits.detach())
    assert backbone.forward(**batch).shape == (4, 3)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_new_head_depends_on_the_seed_alone(architecture: str, tmp_path: Path) -> None:
    folder = tiny.tiny_folder(tmp_path, architecture, initializer_range=0.3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other, low = _load(folder), _load(folder, seed=1), _load(folder, dtype=torch.bfloat16)
    for key, value in first.head_state().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, again.head_state()[key])
        assert torch.equal(value, low.head_state()[key])
        assert torch.equal(value, first.model.get_parameter(key))
        assert torch.equal(value.bfloat16(), low.model.get_parameter(key))
        if key.endswith("bias"):
            assert not value.any()
        else:
            assert not torch.equal(value, other.head_state()[key])
            # 96 draws or more: their deviation is within a third of the nominal one.
            assert 0.2 < value.std() < 0.4
    assert low.dtype == torch.bfloat16
    assert first.content_hash == low.content_hash


def test_regression_has_one_output(tmp_path: Path) -> None:
    backbone = _load(tiny.tiny_folder(tmp_path, "distilbert"), n_labels=1)
    assert backbone.n_labels == 1
    assert backbone.forward(**tiny.tiny_batch()).shape == (4, 1)


def test_no_labels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"`n_labels >= 1` must hold, but got 0"):
        _load(tmp_path, n_labels=0)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A folder with a trained two-label classifier."""
    tiny.tiny_model("electra").save_pretrained(tmp_path)
    tiny.tiny_tokenizer("electra").save_pretrained(tmp_path)
    return tmp_path


def test_a_trained_head_of_the_right_shape_is_kept(classifier: Path) -> None:
    backbone = _load(classifier, n_labels=2)
    trained = tiny.tiny_model("electra")
    assert torch.equal(backbone.forward(**tiny.tiny_batch()), trained(**tiny.tiny_batch()).logits.detach())


def test_of_a_head_for_other_labels_only_the_last_map_is_new(classifier: Path) -> None:
    state, trained = _load(classifier, n_labels=5).head_state(), tiny.tiny_model("electra").state_dict()
    assert torch.equal(state["classifier.dense.weight"], trained["classifier.dense.weight"])
    assert state["classifier.out_proj.weight"].shape == (5, 32)
    assert not state["classifier.out_proj.bias"].any()


def test_a_pooler_that_the_checkpoint_lacks_belongs_to_the_head(tmp_path: Path) -> None:
    """Masked language models are saved without one, and stock transformers would freeze a random one."""
    BertForMaskedLM(tiny.tiny_config("bert")).save_pretrained(tmp_path)
    tiny.tiny_tokenizer("bert").save_pretrained(tmp_path)
    described, loaded = describe_backbone(str(tmp_path)), _load(tmp_path)
    assert loaded.head_paths == ("bert.pooler", "classifier")
    assert described.shapes == loaded.shapes
    assert "bert.pooler.dense.weight" in loaded.head_state()
    assert not any("pooler" in path for path, _ in loaded.embeddings)
    assert torch.equal(loaded.head_state()["bert.pooler.dense.weight"], loaded.model.bert.pooler.dense.weight)


def test_minilm_is_complete_but_for_the_classifier() -> None:
    """Oracle: the tensors of the published file."""
    backbone = load_backbone("minilm", n_labels=10, dtype=torch.float32)
    published = load_file(backbone.folder / "model.safetensors")
    state = backbone.model.state_dict()
    for key, value in state.items():
        if not key.startswith("classifier"):
            assert torch.equal(value, published.pop(key.removeprefix("bert.")))
    assert set(published) <= {"embeddings.position_ids"}
    assert backbone.head_paths == ("classifier",)
    assert backbone.shapes == describe_backbone("minilm").shapes
    # Published: 22.7 M parameters.
    assert backbone.shapes.parameters == 22_713_216
    assert backbone.hub_id == BACKBONES["minilm"].hub_id
    batch = dict(backbone.tokenizer(["a file", "a list of numbers"], padding=True, return_tensors="pt"))
    full = backbone.forward(**batch)
    hidden = backbone.layer_inputs(**batch, layers=[4])[4]
    assert torch.equal(backbone.forward(**batch, hidden_states=hidden, first_layer=4), full)


def test_loading_prints_nothing_and_leaves_logging_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny.tiny_folder(tmp_path, "gpt2", bos_token_id=5000)
    capfd.readouterr()
    before = (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled())
    describe_backbone(str(folder))
    _load(folder)
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_shards_load_as_one_file_does(tmp_path: Path) -> None:
    whole = _load(tiny.tiny_folder(tmp_path / "whole", "llama"))
    tiny.tiny_model("llama").base_model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    tiny.tiny_tokenizer("llama").save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    sharded = _load(tmp_path / "shards")
    assert torch.equal(whole.forward(**tiny.tiny_batch()), sharded.forward(**tiny.tiny_batch()))
    assert describe_backbone(str(tmp_path / "shards")).shapes == whole.shapes


def test_pickled_weights_load_only_with_permission(tmp_path: Path) -> None:
    folder = tiny.tiny_folder(tmp_path, "bert")
    expected = _load(folder).forward(**tiny.tiny_batch())
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for use in (describe_backbone, lambda name: _load(Path(name))):
        with pytest.raises(BackboneError, match=r"pickled \(pytorch_model.bin\)"):
            use(str(folder))
    assert describe_backbone(str(folder), allow_pickle=True).shapes.parameters == 32032
    assert torch.equal(_load(folder, allow_pickle=True).forward(**tiny.tiny_batch()), expected)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_folder(tmp_path_factory.mktemp("intact"), "bert")


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "model")


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "a model's folder has a config.json, but there is none in"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), r"config.json cannot be read|not a valid JSON"),
    "unknown architecture": (lambda f: _edit_config(f, model_type="mamba"), "architecture 'mamba' is not supported"),
    "invented architecture": (lambda f: _edit_config(f, model_type="x-y"), "names no architecture that .* knows"),
    "no architecture": (lambda f: _edit_config(f, model_type=None), "names no architecture that .* knows"),
    "impossible shape": (lambda f: _edit_config(f, num_attention_heads=5), "transformers cannot build it"),
    "adapter beside it": (lambda f: (f / "adapter_config.json").write_text("{}"), "also has an adapter_config.json"),
    "quantised": (
        lambda f: _edit_config(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised weights are not supported",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "there are no weights"),
    "cut weights": (_cut_weights, "model.safetensors is damaged or incomplete"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer.*save_pretrained"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_by_description_and_loading(damage: str, folder: Path) -> None:
    apply, message = DAMAGES[damage]
    apply(folder)
    for use in (describe_backbone, lambda name: _load(Path(name))):
        with pytest.raises(BackboneError, match=message) as caught:
            use(str(folder))
        assert str(caught.value).startswith(f"backbone {folder}: ")
        assert "\n" not in str(caught.value)


def test_an_adapter_is_not_a_backbone(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BackboneError, match="it holds an adapter; give the model it belongs to"):
        describe_backbone(str(tmp_path))


def _edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_counted_and_named(folder: Path) -> None:
    _edit_weights(
        folder, lambda t: [t.pop(f"encoder.layer.1.{key}") for key in ("output.dense.weight", "output.dense.bias")]
    )
    with pytest.raises(
        BackboneError, match=r"2 weights of the model are missing.*\(bert.encoder.layer.1.output.dense.bias"
    ):
        _load(folder)


def test_weights_of_another_shape_are_an_error(folder: Path) -> None:
    _edit_config(folder, intermediate_size=48)
    with pytest.raises(BackboneError, match=r"weights of the model are missing .* or have another shape"):
        _load(folder)


def test_weights_that_are_not_finite_are_an_error(folder: Path) -> None:
    _edit_weights(folder, lambda t: t["encoder.layer.0.output.dense.weight"].view(-1)[7:8].fill_(float("nan")))
    with pytest.raises(BackboneError, match=r"bert.encoder.layer.0.output.dense.weight has values that are not finite"):
        _load(folder)


def test_a_broken_tokenizer_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BackboneError, match="its tokenizer cannot be loaded"):
        _load(folder)


def test_a_tokenizer_of_another_model_is_an_error(folder: Path) -> None:
    _edit_config(folder, vocab_size=50)
    _edit_weights(folder, lambda t: t.update({(k := "embeddings.word_embeddings.weight"): t[k][:50].clone()}))
    with pytest.raises(BackboneError, match="the tokenizer has 99 tokens, but the model embeds 50"):
        _load(folder)


def test_code_that_comes_with_a_model_is_not_run_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = folder / "was_run"
    (folder / "configuration_own.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "from transformers import BertConfig\nclass OwnConfig(BertConfig):\n    model_type = 'own'\n"
    )
    _edit_config(folder, model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    for use in (describe_backbone, lambda name: _load(Path(name))):
        with pytest.raises(BackboneError, match=r"brings Python code of its own.*--trust-remote-code"):
            use(str(folder))
    assert not marker.exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(BackboneError, match="the architecture 'own' is not supported"):
        describe_backbone(str(folder), trust_remote_code=True)
    assert marker.exists()
