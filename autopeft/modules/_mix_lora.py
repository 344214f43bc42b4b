"""MixLoRA: experts that share the frozen feed-forward block, one router per block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autopeft.configuration import BackboneShapes, LinearShape, ModuleSpec, Option, Site
from autopeft.modules._backbone import LinearSite
from autopeft.modules._dropout import Dropout
from autopeft.modules._expert_ffn import (
    ContractOperation,
    ExpandOperation,
    ExpertFeedForward,
    FinishOperation,
    LowRank,
)
from autopeft.modules._hooks import Stage
from autopeft.modules._kind import ExportClass, Member, Place, check_spec, layer_linear, number, output_slice
from autopeft.modules._layout import generator
from autopeft.modules._lora import LoraOperation
from autopeft.modules._moe_lora import expert_values
from autopeft.modules._router import Router, canonical_routing, check_routing, n_experts, router_options
from autopeft.modules._stack import Stack

#: Linear maps of a feed-forward block in the order of the computation.
_PARTS = ("gate", "up", "down")
#: Standard deviation of a new router's weights.
_ROUTER_SPREAD = 0.02


class MixLora:
    r"""MixLoRA: a mixture of whole feed-forward blocks that differ by LoRA updates (arXiv 2404.15159).

    .. math:: y = \sum_e w_e(x)\, F_e(x) + (1 - \sum_e w_e(x))\, F(x)

    where F is the frozen block and F_e the block with s B_e A_e added to its weights: up, down, and gate where there is
    one; A_e (r, in) uniform in +-1/sqrt(in), B_e (out, r) zero. The weights come from one router per block (`Router`;
    normal with standard deviation 0.02), computed from the block's input x. With ``topk`` they sum to one, and F stands
    in for tokens without room (``switch``) and for experts not chosen (``topp``, ``switch``). Trained numbers: E (r
    sum of (in + out) over the maps + h). One expert needs no router and is LoRA on every map of the block, which is
    what the compiler makes of it. LoRA on the attention stands beside it as modules of type ``lora``. Options as in
    `MoeLora`, one dropout mask for all experts included.
    """

    name = "mix_lora"
    parts = frozenset({"ffn"})
    is_sized = True
    options: Mapping[str, Option] = router_options(balance=0.01)
    export_class: ExportClass = "own"
    is_identity = True

    def canonical(self, spec: ModuleSpec) -> ModuleSpec:
        """Without the options that its router does not read."""
        return canonical_routing(self, spec, dense=self.name)

    def expand(self, spec: ModuleSpec, site: Site) -> Sequence[tuple[Site, ModuleSpec]] | None:
        """One expert as ``lora`` on the block's linear maps."""
        if n_experts(self, spec) > 1:
            return None
        kept = {name: value for name, value in spec.options if name in ("scale", "dropout")}
        lora = ModuleSpec.make("lora", spec.size, **kept)
        return [(Site(layer=site.layer, part=part), lora) for part in _PARTS]

    def parameter_count(self, spec: ModuleSpec, site: Site, shapes: BackboneShapes) -> int:
        """The experts' ranks times the widths of all maps, and the router."""
        check_spec(self, spec)
        check_routing(self, spec)
        linears = _shapes(site, shapes)
        if linears is None:
            return 0
        n = n_experts(self, spec)
        router = linears["up"].in_features if n > 1 else 0
        widths = sum(linear.in_features + linear.out_features for linear in linears.values())
        return n * ((spec.size or 0) * widths + router)

    def build(self, place: Place, members: Sequence[Member]) -> list[Stack]:
        for member in members:
            check_routing(self, member.spec)
        found = {part: place.backbone.linear(place.layer, part) for part in _PARTS}
        linears = {part: linear for part, linear in found.items() if linear is not None}
        if not {"up", "down"} <= set(linears):
            return []
        dense = [member for member in members if n_experts(self, member.spec) == 1]
        mixed = [member for member in members if n_experts(self, member.spec) > 1]
        variant = "dense" if dense and mixed else ""
        stacks = self._build_dense(place, linears, dense, variant) if dense else []
        return stacks + (self._build_mixed(place, linears, mixed) if mixed else [])

    def _build_dense(
        self, place: Place, linears: Mapping[str, LinearSite], members: Sequence[Member], variant: str
    ) -> list[Stack]:
        stacks = []
        for part, linear in linears.items():
            experts = self._experts(place, part, linear, members, variant, is_dense=True)
            start, stop = output_slice(linear)
            operation = LoraOperation(experts.stack, experts.dropout)
            place.hooks.on_output(linear.module, operation, Stage.UPDATE, start, stop)
            stacks.append(experts.stack)
        return stacks

    def _build_mixed(self, place: Place, linears: Mapping[str, LinearSite], members: Sequence[Member]) -> list[Stack]:
        experts = {part: self._experts(place, part, linear, members, "") for part, linear in linears.items()}
        width = linears["up"].shape.in_features
        values = [_router_values(place.key, member, n_experts(self, member.spec), width) for member in members]
        router = Router.make(self, place, members, values)
        block = ExpertFeedForward(experts, router)
        for part, linear in linears.items():
            if part != "down":
                place.hooks.on_output(linear.module, ExpandOperation(block, part), Stage.COPIES)
        down = linears["down"].module
        place.hooks.on_input(down, ContractOperation(block), is_first=True)
        place.hooks.on_output(down, FinishOperation(block), Stage.UPDATE)
        return [router.stack, *(item.stack for item in experts.values())]

    def _experts(
        self,
        place: Place,
        part: str,
        linear: LinearSite,
        members: Sequence[Member],
        variant: str,
        *,
        is_dense: bool = False,
    ) -> LowRank:
        key = f"{place.key}.{part}"
        widths = (linear.shape.in_features, linear.shape.out_features)
        initial = [expert_values(key, member, n_experts(self, member.spec), *widths) for member in members]
        if is_dense:
            initial = [{name: value.squeeze(0) for name, value in values.items()} for values in initial]
        stack = Stack(
            key,
            place.layout,
            [member.candidate for member in members],
            initial,
            transposed=["B"] if is_dense else (),
            constants={"scale": [number(self, member.spec, "scale") for member in members]},
            variant=variant,
        )
        dropout = Dropout.make(stack, [number(self, member.spec, "dropout") for member in members])
        return LowRank(stack=stack, dropout=dropout)


def _shapes(site: Site, shapes: BackboneShapes) -> dict[str, LinearShape] | None:
    """Shapes of the block's linear maps; None if the backbone has no such block."""
    found = {part: layer_linear(site, shapes, part) for part in _PARTS}
    linears = {part: linear for part, linear in found.items() if linear is not None}
    return linears if {"up", "down"} <= set(linears) else None


def _router_values(key: str, member: Member, n: int, width: int) -> Tensor:
    return torch.empty(n, width).normal_(0, _ROUTER_SPREAD, generator=generator(member.seed, key, "router"))
