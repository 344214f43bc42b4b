"""Full fine-tuning of a part: trained copies of all its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autopeft.configuration import LINEAR_PARTS, BackboneShapes, ModuleSpec, Option, Site
from autopeft.modules._backbone import LinearSite
from autopeft.modules._hooks import Stage
from autopeft.modules._kind import (
    ExportClass,
    Member,
    Place,
    Weights,
    check_spec,
    layer_linear,
    output_slice,
)
from autopeft.modules._replace import LinearReplacement, module_replacement
from autopeft.modules._stack import Stack


class Full:
    """Every tensor of a part is trained: the baseline that the other types are measured against.

    ``norm`` means all normalisations of the layer, ``embedding`` everything outside layers and head. Trained copies
    are float32; linears compute in the backbone's dtype, norms and embeddings in float32. Trained numbers: all of them.
    """

    name = "full"
    parts = frozenset((*LINEAR_PARTS, "norm", "embedding"))
    is_sized = False
    options: Mapping[str, Option] = {}
    export_class: ExportClass = "merge"
    is_identity = True
    merge_stage = Stage.REPLACE
    #: Two trained copies of one tensor would be one too many (`autopeft.configuration.ReplacingType`).
    replaces = True

    def parameter_count(self, spec: ModuleSpec, site: Site, shapes: BackboneShapes) -> int:
        """Weights and biases."""
        check_spec(self, spec)
        if site.layer is None:
            return shapes.embedding_parameters
        if site.part == "norm":
            norms = shapes.layers[site.layer].norms if site.layer < shapes.n_layers else ()
            return sum(norm.features * (1 + norm.has_bias) for norm in norms)
        linear = layer_linear(site, shapes)
        return 0 if linear is None else linear.out_features * (linear.in_features + linear.has_bias)

    def build(self, place: Place, members: Sequence[Member]) -> list[Stack]:
        owners = [member.candidate for member in members]
        if place.site.part == "embedding":
            modules = [(f"{place.key}.{path}", module) for path, module in place.backbone.embeddings]
            return [copy_module(place, key, module, owners) for key, module in modules]
        if place.site.part == "norm":
            norms = enumerate(place.backbone.norms(place.layer))
            return [copy_module(place, f"{place.key}.{index}", norm, owners) for index, (_, norm) in norms]
        linear = place.backbone.linear(place.layer, place.site.part)
        return [] if linear is None else [_copy_linear(place, linear, owners)]

    def merge(self, spec: ModuleSpec, site: Site, tensors: Mapping[str, Tensor], weights: Weights) -> None:
        """Replace the weights."""
        for name, value in tensors.items():
            path, _, parameter = name.rpartition(".")
            if site.part == "embedding":
                weights.tensor(name).copy_(value)
            elif site.part == "norm":
                weights.norm(site.layer or 0, int(path), parameter).copy_(value)
            else:
                target = weights.linear(site.layer or 0, site.part)
                copied = target.weight if parameter == "weight" else target.bias
                if copied is not None:
                    copied.copy_(value)


def _copy_linear(place: Place, linear: LinearSite, owners: Sequence[int]) -> Stack:
    module: Any = linear.module
    weight = module.weight.t() if linear.is_transposed else module.weight
    initial = {"weight": weight[linear.start : linear.stop]}
    if linear.shape.has_bias:
        initial["bias"] = module.bias[linear.start : linear.stop]
    stack = Stack(place.key, place.layout, owners, [_float_copies(initial)] * len(owners))
    _linear_replacement(place, linear.module).add(stack, *output_slice(linear))
    return stack


def copy_module(place: Place, key: str, module: nn.Module, owners: Sequence[int]) -> Stack:
    """Compute a module with the owners' trained copies of its own parameters."""
    initial = _float_copies(dict(module.named_parameters(recurse=False)))
    if isinstance(module, nn.Linear):
        stack = Stack(key, place.layout, owners, [initial] * len(owners))
        _linear_replacement(place, module).add(stack)
        return stack
    stack = Stack(key, place.layout, owners, [initial] * len(owners), dtype=torch.float32)
    module_replacement(place.hooks, module, place.layout.dtype).add(stack)
    if place.site.part == "embedding":
        place.hooks.note_rows(place.backbone.model, place.layout)
    return stack


def _linear_replacement(place: Place, module: nn.Module) -> LinearReplacement:
    found = place.hooks.replacement(module)
    if isinstance(found, LinearReplacement):
        return found
    made = LinearReplacement(module)
    place.hooks.replace(module, made)
    return made


def _float_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu() for name, value in tensors.items()}
