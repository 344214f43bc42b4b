import warnings
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import BitsAndBytesConfig

from autopeft.backbones import Backbone, wrap_model
from autopeft.exceptions import BackboneError, ConfigurationError
from tests import tiny

N_LAYERS = 3
HAS_SEGMENTS = ("bert", "electra")


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_starting_at_any_layer_equals_the_full_pass_bit_for_bit(architecture: str, dtype: torch.dtype) -> None:
    backbone = tiny.tiny_backbone(architecture, n_labels=3, dtype=dtype)
    batches = [tiny.tiny_batch(), tiny.tiny_batch(rows=2, length=9, seed=1, pad_left=True), tiny.tiny_batch(rows=1)]
    for batch in batches:
        full = backbone.forward(**batch)
        assert full.shape == (len(batch["input_ids"]), 3)
        assert full.dtype == dtype
        states = backbone.layer_inputs(**batch, layers=range(N_LAYERS + 1))
        for layer, hidden in states.items():
            assert torch.equal(backbone.forward(**batch, hidden_states=hidden, first_layer=layer), full)
        assert torch.equal(backbone.forward(**batch), full)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_forward_is_the_stock_models(architecture: str) -> None:
    """Oracle: the same weights in a transformers model that nobody wrapped."""
    batch = tiny.tiny_batch()
    with torch.no_grad():
        expected = tiny.tiny_model(architecture)(**batch).logits
    assert torch.equal(tiny.tiny_backbone(architecture).forward(**batch), expected)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_layer_inputs_are_the_hidden_states_transformers_reports(architecture: str) -> None:
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    reported = tiny.tiny_model(architecture)(**batch, output_hidden_states=True).hidden_states
    states = backbone.layer_inputs(**batch, layers=range(N_LAYERS + 1))
    final_norm = {"gpt2": "ln_f"}.get(architecture, "norm") if backbone.is_decoder else None
    if final_norm is not None:
        states[N_LAYERS] = getattr(backbone.model.base_model, final_norm)(states[N_LAYERS])
    for layer, expected in enumerate(reported):
        assert torch.equal(states[layer], expected.detach())
        assert states[layer].shape == (4, 12, 32)
        assert not states[layer].requires_grad


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("first_layer", [1, N_LAYERS])
def test_nothing_below_the_first_layer_is_computed(architecture: str, first_layer: int) -> None:
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    hidden = backbone.layer_inputs(**batch, layers=[first_layer])[first_layer]
    calls: list[int] = []
    for index in range(N_LAYERS):
        site = backbone.linear(index, "down")
        assert site is not None
        site.module.register_forward_hook(lambda *_, index=index: calls.append(index))
    words = backbone.model.get_input_embeddings()
    words.register_forward_pre_hook(lambda *_: calls.append(-1) if "forward" not in words.__dict__ else None)
    backbone.forward(**batch, hidden_states=hidden, first_layer=first_layer)
    assert calls == list(range(first_layer, N_LAYERS))


def test_layer_inputs_computes_no_layer_above_the_highest() -> None:
    backbone = tiny.tiny_backbone("llama")
    backbone.layers[1].mlp.register_forward_hook(lambda *_: pytest.fail("layer 1 was computed"))
    assert backbone.layer_inputs(**tiny.tiny_batch(), layers=[0, 1]).keys() == {0, 1}


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "qwen3"])
def test_gradients_from_stored_states_are_those_of_the_full_pass(architecture: str) -> None:
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    shift = torch.zeros(32, requires_grad=True)
    site = backbone.linear(1, "o")
    assert site is not None
    site.module.register_forward_hook(lambda _, __, output: output + shift)
    hidden = backbone.layer_inputs(**batch, layers=[1])[1]
    gradients = []
    for inputs in ({}, {"hidden_states": hidden, "first_layer": 1}):
        loss = backbone.forward(**batch, **inputs).square().sum()
        gradients += torch.autograd.grad(loss, shift)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_padding_does_not_change_a_row(architecture: str) -> None:
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    length = int(batch["attention_mask"][3].sum())
    assert length < 12
    alone = {key: value[3:4, :length] for key, value in batch.items()}
    assert_close(backbone.forward(**batch)[3:4], backbone.forward(**alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_segments_reach_the_models_that_have_them_and_no_other(architecture: str) -> None:
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    backbone.model.config.type_vocab_size = 2 if architecture in HAS_SEGMENTS else 1
    with_segments = backbone.forward(**batch, token_type_ids=batch["attention_mask"])
    assert torch.equal(with_segments, backbone.forward(**batch)) == (architecture not in HAS_SEGMENTS)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_positions_without_offset_are_the_models_own(architecture: str) -> None:
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    positions = backbone.position_ids(batch["attention_mask"])
    assert positions.shape == (4, 12)
    assert torch.equal(backbone.forward(**batch, position_ids=positions), backbone.forward(**batch))


# DistilBERT takes no past keys and values, so peft has no prefix tuning for it.
@pytest.mark.parametrize("architecture", [name for name in tiny.ARCHITECTURES if name != "distilbert"])
def test_positions_with_offset_are_those_of_peft(architecture: str) -> None:
    """Oracle: the positions that the model looks up or rotates by when peft's prefix tuning runs it."""
    backbone, batch = tiny.tiny_backbone(architecture), tiny.tiny_batch()
    with warnings.catch_warnings():
        # peft reads names that transformers has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5)
        prefix = get_peft_model(tiny.tiny_model(architecture), config).eval()
        peft_positions = _record_positions(prefix.base_model)
        prefix(**batch)
    positions = backbone.position_ids(batch["attention_mask"], 5)
    assert peft_positions[0].shape[-1] == 12
    assert torch.equal(peft_positions[0].expand(4, 12), positions)
    own_positions = _record_positions(backbone.model)
    backbone.forward(**batch, position_ids=positions)
    assert torch.equal(own_positions[0].expand(4, 12), positions)


def _record_positions(model: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    for name, module in model.named_modules():
        if name.endswith(("position_embeddings", "wpe")):
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        elif name.endswith("rotary_emb"):
            module.register_forward_pre_hook(
                lambda _, args, kwargs: seen.append(kwargs["position_ids"] if "position_ids" in kwargs else args[1]),
                with_kwargs=True,
            )
    return seen


def test_max_positions_leaves_out_those_that_padding_takes() -> None:
    """Oracle: the longest input that the embedding table can serve."""
    for architecture in ("bert", "roberta", "gpt2"):
        backbone = tiny.tiny_backbone(architecture)
        assert backbone.max_positions == tiny.MAX_POSITIONS
        ids = torch.full((1, tiny.MAX_POSITIONS), 7)
        assert backbone.forward(ids, torch.ones_like(ids)).isfinite().all()
        with pytest.raises(IndexError):
            backbone.model.get_submodule(
                "transformer.wpe" if architecture == "gpt2" else f"{architecture}.embeddings.position_embeddings"
            )(backbone.position_ids(torch.ones_like(ids), 1))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_backbone_is_frozen_and_evaluates(architecture: str) -> None:
    backbone = wrap_model(tiny.tiny_model(architecture).train())
    assert not any(item.requires_grad for item in backbone.model.parameters())
    assert not any(module.training for module in backbone.model.modules())
    assert backbone.model.config._attn_implementation == "sdpa"
    assert (backbone.n_labels, backbone.dtype, backbone.device.type) == (2, torch.float32, "cpu")
    assert backbone.architecture == architecture


def test_an_eager_model_is_made_to_attend_by_sdpa() -> None:
    model = tiny.tiny_model("bert")
    model.set_attn_implementation("eager")
    assert wrap_model(model).attention(0).config._attn_implementation == "sdpa"


def test_head_state_is_a_float32_copy_of_the_head() -> None:
    backbone = tiny.tiny_backbone("distilbert", dtype=torch.bfloat16)
    state = backbone.head_state()
    assert list(state) == ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"]
    for key, value in state.items():
        assert value.dtype == torch.float32
        assert torch.equal(value.bfloat16(), backbone.model.get_parameter(key))
        value.zero_()
    assert backbone.head_state()["classifier.weight"].any()


def test_content_hash_follows_weights_and_configuration() -> None:
    hashes = {
        tiny.tiny_backbone("bert").content_hash,
        tiny.tiny_backbone("bert", seed=1).content_hash,
        tiny.tiny_backbone("bert", layer_norm_eps=1e-5).content_hash,
        tiny.tiny_backbone("bert", dtype=torch.bfloat16).content_hash,
    }
    assert len(hashes) == 4
    assert tiny.tiny_backbone("bert").content_hash in hashes


def test_a_tokenizer_without_padding_pads_with_the_end_of_text() -> None:
    model = tiny.tiny_model("llama", pad_token_id=None)
    tokenizer = tiny.tiny_tokenizer("llama", has_pad_token=False)
    backbone = wrap_model(model, tokenizer)
    assert tokenizer.pad_token == "[SEP]"
    assert backbone.pad_token_id == model.config.pad_token_id == tiny.SEP


def test_a_padding_token_that_the_model_does_not_embed_is_replaced() -> None:
    tokenizer = tiny.tiny_tokenizer("llama")
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    assert tokenizer.pad_token_id >= len(tiny.VOCABULARY)
    assert wrap_model(tiny.tiny_model("llama"), tokenizer).pad_token_id == tiny.SEP


def test_no_padding_token_at_all_is_an_error() -> None:
    with pytest.raises(BackboneError, match="set `pad_token_id` in its configuration"):
        wrap_model(tiny.tiny_model("llama", pad_token_id=None))
    tokenizer = tiny.tiny_tokenizer("llama", has_pad_token=False)
    tokenizer.eos_token = tokenizer.bos_token = tokenizer.unk_token = None
    with pytest.raises(BackboneError, match=r"tiny: batches need a padding token.*set `pad_token`"):
        wrap_model(tiny.tiny_model("llama"), tokenizer, name="tiny")


def test_a_tokenizer_that_pads_otherwise_than_roberta_counts_is_an_error() -> None:
    with pytest.raises(BackboneError, match="pads with token 0, but the model counts positions by padding token 1"):
        wrap_model(tiny.tiny_model("roberta", pad_token_id=1), tiny.tiny_tokenizer("roberta"))


@pytest.fixture(scope="module")
def bert() -> Backbone:
    return tiny.tiny_backbone("bert")


def test_a_part_that_the_architecture_lacks_is_none(bert: Backbone) -> None:
    assert bert.linear(0, "gate") is None
    assert bert.linear(0, "up") is not None


@pytest.mark.parametrize("layer", [-1, N_LAYERS])
def test_a_layer_that_does_not_exist_is_an_error(bert: Backbone, layer: int) -> None:
    for ask in (bert.norms, bert.attention, lambda index: bert.linear(index, "q")):
        with pytest.raises(ConfigurationError, match=f"layer {layer} does not exist: backbone tiny-bert has 0 to 2"):
            ask(layer)


def test_a_part_that_is_no_linear_is_an_error(bert: Backbone) -> None:
    with pytest.raises(ConfigurationError, match="'ffn'"):
        bert.linear(0, "ffn")


def test_starting_points_are_checked(bert: Backbone) -> None:
    batch = tiny.tiny_batch()
    with pytest.raises(ConfigurationError, match="starting at layer 1 needs the hidden states"):
        bert.forward(**batch, first_layer=1)
    with pytest.raises(ConfigurationError, match=r"0 <= layer <= 3.*got 4"):
        bert.forward(**batch, hidden_states=torch.zeros(4, 12, 32), first_layer=4)
    with pytest.raises(ConfigurationError, match="got -1"):
        bert.layer_inputs(**batch, layers=[-1])


@pytest.mark.parametrize("settings", [{"quant_method": "gptq", "bits": 4}, BitsAndBytesConfig(load_in_4bit=True)])
def test_a_quantised_model_is_refused(settings: Any) -> None:
    model = tiny.tiny_model("bert")
    model.config.quantization_config = settings
    with pytest.raises(
        BackboneError, match=r"quantised .* names (gptq|bitsandbytes): sparse updates that drop and grow"
    ):
        wrap_model(model)
