from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from autopeft.backbones import wrap_model
from autopeft.backbones._sites import is_inside
from autopeft.configuration import LINEAR_PARTS
from autopeft.exceptions import BackboneError
from tests import tiny


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_parameter_is_in_a_layer_the_embeddings_or_the_head(architecture: str) -> None:
    backbone = tiny.tiny_backbone(architecture)
    owned = {
        "layers": {id(item) for item in backbone.layers.parameters()},
        "embeddings": {id(item) for _, module in backbone.embeddings for item in module.parameters(recurse=False)},
        "head": {id(p) for path in backbone.head_paths for p in backbone.model.get_submodule(path).parameters()},
    }
    every = {id(item): item.numel() for item in backbone.model.parameters()}
    assert sum(len(ids) for ids in owned.values()) == len(every)
    assert set().union(*owned.values()) == set(every)
    shapes = backbone.shapes
    assert shapes.embedding_parameters == sum(every[key] for key in owned["embeddings"])
    assert shapes.parameters == sum(size for key, size in every.items() if key not in owned["head"])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_shapes_of_linears_and_norms_are_those_of_their_tensors(architecture: str) -> None:
    backbone = tiny.tiny_backbone(architecture)
    for index, shape in enumerate(backbone.shapes.layers):
        assert shape.linears.keys() == {part for part in LINEAR_PARTS if backbone.linear(index, part) is not None}
        counted = 0
        for part, linear in shape.linears.items():
            site = backbone.linear(index, part)
            assert site is not None
            assert site.shape == linear
            assert backbone.model.get_submodule(site.path) is site.module
            counted += linear.in_features * linear.out_features + linear.out_features * linear.has_bias
        for norm, (path, module) in zip(shape.norms, backbone.norms(index), strict=True):
            assert backbone.model.get_submodule(path) is module
            counted += norm.features * (1 + norm.has_bias)
        assert counted == sum(item.numel() for item in backbone.layers[index].parameters())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_key_value_heads_and_head_size(architecture: str) -> None:
    layer = tiny.tiny_backbone(architecture).shapes.layers[0]
    is_grouped = architecture in tiny.DECODERS and architecture != "gpt2"
    assert (layer.n_kv_heads, layer.head_size) == (2 if is_grouped else 4, 8)
    assert layer.linears["k"].out_features == layer.n_kv_heads * layer.head_size
    assert layer.linears["q"].out_features == 4 * layer.head_size


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_linear_parts_compute_what_attention_sees(architecture: str) -> None:
    """Oracle: the attention interface receives exactly what q, k and v gave, called by the module we name."""
    backbone = tiny.tiny_backbone(architecture)
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    outputs: dict[nn.Module, torch.Tensor] = {}

    def attend(module: nn.Module, query: Any, key: Any, value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((module, value.transpose(1, 2).flatten(2)))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, *args, **kwargs)

    for index in range(len(backbone.layers)):
        site = backbone.linear(index, "v")
        assert site is not None
        site.module.register_forward_hook(lambda module, _, output: outputs.__setitem__(module, output))
    ALL_ATTENTION_FUNCTIONS["seen"] = attend
    backbone.model.config._attn_implementation = "seen"
    try:
        backbone.forward(**tiny.tiny_batch())
    finally:
        del ALL_ATTENTION_FUNCTIONS["seen"]
    assert [module for module, _ in seen] == [backbone.attention(i) for i in range(3)]
    for index, (module, value) in enumerate(seen):
        site = backbone.linear(index, "v")
        assert site is not None
        assert torch.equal(outputs[site.module][..., site.start : site.stop], value)
        assert backbone.model.get_submodule(backbone.attention_path(index)) is module


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_norms_come_in_the_order_of_the_computation(architecture: str) -> None:
    backbone = tiny.tiny_backbone(architecture)
    called: list[nn.Module] = []
    for _, module in backbone.norms(1):
        module.register_forward_hook(lambda module, *_: called.append(module))
    backbone.forward(**tiny.tiny_batch())
    assert called == [module for _, module in backbone.norms(1)]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_up_reads_what_enters_the_feed_forward_and_down_gives_its_output(architecture: str) -> None:
    """The feed-forward is a function of up's input (and gate's, which is the same tensor)."""
    backbone = tiny.tiny_backbone(architecture)
    inputs: dict[str, torch.Tensor] = {}
    for part in ("up", "gate", "down"):
        site = backbone.linear(0, part)
        if site is not None:
            site.module.register_forward_pre_hook(lambda _, args, part=part: inputs.__setitem__(part, args[0]))
    backbone.forward(**tiny.tiny_batch())
    assert inputs["up"].shape[-1] == 32
    assert inputs["down"].shape[-1] == 64
    if "gate" in inputs:
        assert inputs["gate"] is inputs["up"]


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"BertModel is not laid out as a sequence-classification model of 'bert'"):
        wrap_model(BertModel(tiny.tiny_config("bert")))


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(BackboneError, match="at least one transformer layer is needed"):
        wrap_model(tiny.tiny_model("bert", n_layers=0))


def test_is_inside_compares_whole_names() -> None:
    assert is_inside("classifier.dense", ("classifier",))
    assert is_inside("classifier", ("classifier",))
    assert not is_inside("classifier2.dense", ("classifier",))
    assert not is_inside("pre_classifier", ("classifier",))
