"""Oracles: counts and specs written out by hand."""

from __future__ import annotations

import copy
import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from autopeft.configuration import BoundSpace, Configuration, ModuleSpec, Placement, Site, parse_search_space
from autopeft.configuration._compile import PlannedModule
from autopeft.configuration._place import Placer, canonical_spec
from autopeft.exceptions import InfeasibleError
from tests.configuration.mixtures import DEFINITION, EXPERTS, KINDS, POINT, SHAPES, Experts, bound, specs


def test_counts_follow_the_options() -> None:
    space = bound()
    expected = 2 * sum(n * 3 * 96 + n * 48 for n in (2, 4, 6, 8))
    assert space.parameter_count(space.compile(POINT)) == expected
    # The same space again: cached counts must not mix up options.
    flat = space.compile({**POINT, "mean_experts": 2, "experts_profile": "flat"})
    assert space.parameter_count(flat) == 2 * 4 * 2 * (3 * 96 + 48)


def test_one_expert_is_a_dense_lora() -> None:
    """Whatever the other options say, and it has the fingerprint of the LoRA that anyone else would write."""
    space = bound()
    base = {**POINT, "mean_experts": 1, "experts_profile": "flat"}
    dense = {(Site(layer=layer, part=part), ModuleSpec.make("lora", 3)) for layer in range(4) for part in "qv"}
    expected = Configuration.make(dense, learning_rate=1e-3)
    for router, balance in itertools.product(["topk", "topp"], [1e-3, 1e-2]):
        point = {**base, "router": router, "balance": balance}
        assert space.compile(point).fingerprint == expected.fingerprint
    assert space.parameter_count(expected) == 4 * 2 * 3 * 96
    assert space.type_names == {"experts", "lora", "prefix"}
    assert canonical_spec(ModuleSpec.make("lora", 3), KINDS) == ModuleSpec.make("lora", 3)


def test_refused_combinations_name_the_parameters_of_the_space() -> None:
    definition = copy.deepcopy(DEFINITION)
    definition["parameters"]["k"] = {"type": "int", "low": 1, "high": 4, "when": {"moe": True}}
    definition["modules"]["experts"]["options"]["top_k"] = {"parameter": "k"}
    space = BoundSpace(space=parse_search_space(definition, KINDS), shapes=SHAPES, module_types=KINDS)
    point = {**POINT, "k": 4}
    assert not space.is_feasible(point)
    with pytest.raises(InfeasibleError) as caught:
        space.compile(point)
    assert str(caught.value) == (
        "experts at q of layer 0 is refused: experts: top_k must be at most the experts, 2, but is 4. "
        "Parameters that decide it: mean_experts and experts_profile (experts is 2), k (top_k is 4)."
    )
    assert space.is_feasible({**point, "experts_profile": "flat"})
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = space.compile(space.sample(rng))
        assert all(
            int(spec.option("top_k", 2)) <= int(spec.option("experts", 4))
            for spec in specs(drawn)
            if spec.type == "experts"
        )


def test_two_rules_that_become_one_type_at_one_site() -> None:
    definition = copy.deepcopy(DEFINITION)
    definition["modules"]["lora"] = {"size": 2, "parts": ["v"]}
    space = BoundSpace(space=parse_search_space(definition, KINDS), shapes=SHAPES, module_types=KINDS)
    assert space.is_feasible(POINT)
    with pytest.raises(InfeasibleError, match="experts and lora both become lora at v of layer 0"):
        space.compile({**POINT, "mean_experts": 1, "experts_profile": "flat"})


def test_every_combination_is_asked_for_once() -> None:
    """Refusals included; and other sizes, options and sites are other combinations."""
    asked: list[tuple[ModuleSpec, Site]] = []

    class Noting(Experts):
        def parameter_count(self, spec: ModuleSpec, site: Site, shapes: Any) -> int:
            asked.append((spec, site))
            return super().parameter_count(spec, site, shapes)

    kinds = {**KINDS, "experts": Noting(**{item.name: getattr(EXPERTS, item.name) for item in fields(EXPERTS)})}
    rule = next(item for item in parse_search_space(DEFINITION, KINDS).modules if item.name == "experts")
    placer = Placer(shapes=SHAPES, module_types=kinds)
    item = PlannedModule(rule=rule, layer=1, part="q", size=3, options=(("experts", 2),))
    assert placer.count(item) == placer.count(item) == 2 * 3 * 96 + 2 * 48
    expected = Placement(site=Site(layer=1, part="q"), module=ModuleSpec.make("experts", 3, experts=2))
    assert placer.placements(item) == [(expected, placer.count(item))]
    assert asked == [(ModuleSpec.make("experts", 3, experts=2), Site(layer=1, part="q"))]
    refused = replace(item, options=(("experts", 2), ("top_k", 3)))
    for _ in range(2):
        with pytest.raises(InfeasibleError, match="experts at q of layer 1 is refused: experts: top_k must be"):
            placer.count(refused)
    for other in (replace(item, size=4), replace(item, layer=2), replace(item, part="gate")):
        placer.count(other)
    assert placer.count(replace(item, part="gate")) == 0
    assert len(asked) == 5
