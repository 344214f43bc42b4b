"""Oracles: expansion written out by hand."""

from typing import Any

import pytest

from autopeft.configuration import BoundSpace, Configuration, parse_search_space
from autopeft.exceptions import ConfigurationError, InfeasibleError, UnknownNameError
from tests.configuration.examples import TYPES, bert_shapes, llama_shapes

DEFINITION: dict[str, Any] = {
    "name": "small",
    "description": "Everything the file format has.",
    "parameters": {
        "lora": {"type": "bool"},
        "rank": {"type": "int", "low": 1, "high": 16, "when": {"lora": True}},
        "parts": {"type": "categorical", "choices": ["qv", "ffn"], "when": {"lora": True}},
        "profile": {"type": "categorical", "choices": ["flat", "increasing"], "when": {"lora": True}},
        "k": {"type": "int", "low": 0, "high": 10},
        "gate": {"type": "categorical", "choices": ["all", "top", "bits"]},
        "share": {"type": "float", "low": 0.1, "high": 1.0, "when": {"gate": "top"}},
        "bit": {"type": "bool", "per_layer": True, "when": {"gate": "bits"}},
        "rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    },
    "modules": {
        "lora": {
            "when": {"lora": True},
            "size": "rank",
            "profile": "profile",
            "parts": {"parameter": "parts", "lists": {"qv": ["q", "v"], "ffn": ["up", "gate", "down"]}},
            "options": {"scale": 1.0},
        },
        "prefix": {"size": {"hidden_size_halvings": "k"}, "parts": ["attention"]},
        "bitfit": {"when": {"k": [10]}, "parts": ["bias"]},
    },
    "layers": {
        "parameter": "gate",
        "rules": {"all": "all", "top": {"top_share": "share"}, "bits": {"bits": "bit"}},
    },
    "learning_rate": "rate",
    "budget": "scale",
}
SHAPES = bert_shapes(n_layers=4, hidden=48, ffn=96, heads=4)


def bound(cap: int | None = None, shapes: Any = SHAPES, **changes: Any) -> BoundSpace:
    space = parse_search_space({**DEFINITION, **changes}, TYPES)
    return BoundSpace(space=space, shapes=shapes, module_types=TYPES, budget=cap)


def modules(configuration: Configuration) -> set[tuple[str, int | None, str, int | None]]:
    return {(item.module.type, item.module.size, item.site.part, item.site.layer) for item in configuration.placements}


ALL = {"lora": False, "k": 2, "gate": "all", "rate": 1e-3}


def test_halvings_give_floor_of_the_hidden_size() -> None:
    assert modules(bound().compile(ALL)) == {("prefix", 12, "attention", layer) for layer in range(4)}
    sizes = [next(iter(modules(bound().compile({**ALL, "k": k}))))[1] for k in range(6)]
    assert sizes == [48, 24, 12, 6, 3, 1]


def test_size_zero_is_absent() -> None:
    """floor(48 / 2^6) = 0: nothing is left; with k = 10 a condition switches another module on."""
    with pytest.raises(InfeasibleError, match="tunes nothing"):
        bound().compile({**ALL, "k": 6})
    assert modules(bound().compile({**ALL, "k": 10})) == {("bitfit", None, "bias", layer) for layer in range(4)}


@pytest.mark.parametrize(
    ("share", "layers"), [(0.1, {3}), (0.25, {3}), (0.26, {2, 3}), (0.75, {1, 2, 3}), (1.0, {0, 1, 2, 3})]
)
def test_top_share_rounds_up(share: float, layers: set[int]) -> None:
    found = modules(bound().compile({**ALL, "gate": "top", "share": share}))
    assert {layer for *_, layer in found} == layers


def test_bits_gate_layers_and_profiles_span_what_is_left() -> None:
    bits = {"bit_0": True, "bit_1": False, "bit_2": True, "bit_3": True}
    point = {**ALL, "k": 6, "gate": "bits", **bits, "lora": True, "rank": 10, "parts": "qv", "profile": "increasing"}
    # Weights 1, 2.5, 4 have mean 2.5: sizes 4, 10, 16.
    expected = {("lora", size, part, layer) for size, layer in ((4, 0), (10, 2), (16, 3)) for part in ("q", "v")}
    assert modules(bound().compile(point)) == expected
    assert dict(bound().compile(point).placements[0].module.options) == {"scale": 1.0}


@pytest.mark.parametrize(("scale", "options"), [(2, {}), (2.0, {}), (3, {"scale": 3.0}), (0.5, {"scale": 0.5})])
def test_options_are_canonical(scale: float, options: dict[str, float]) -> None:
    """2 is LoRA's default here: naming it changes nothing, and whole numbers are the floats they stand for."""
    changes = {
        "modules": {**DEFINITION["modules"], "lora": {**DEFINITION["modules"]["lora"], "options": {"scale": scale}}}
    }
    point = {**ALL, "k": 6, "lora": True, "rank": 3, "parts": "qv", "profile": "flat"}
    placements = bound(**changes).compile(point).placements
    assert [dict(item.module.options) for item in placements] == [options] * 8
    assert all(type(value) is float for item in placements for _, value in item.module.options)


def test_a_space_read_on_trust_is_checked_when_bound() -> None:
    lora = {**DEFINITION["modules"]["lora"], "type": "loar"}
    with pytest.raises(UnknownNameError, match="unknown module type 'loar'"):
        _bind_on_trust({**DEFINITION, "modules": {**DEFINITION["modules"], "lora": lora}})
    lora = {**DEFINITION["modules"]["lora"], "options": {"scal": 2}}
    with pytest.raises(ConfigurationError, match="lora has no option 'scal'"):
        _bind_on_trust({**DEFINITION, "modules": {**DEFINITION["modules"], "lora": lora}})


def _bind_on_trust(definition: dict[str, Any]) -> BoundSpace:
    return BoundSpace(space=parse_search_space(definition), shapes=SHAPES, module_types=TYPES)


def test_no_bit_set_is_infeasible() -> None:
    point = {**ALL, "gate": "bits", **{f"bit_{layer}": False for layer in range(4)}}
    assert bound().contains(point)
    with pytest.raises(InfeasibleError, match="tunes nothing"):
        bound().compile(point)


def test_sites_that_the_backbone_lacks_are_absent() -> None:
    point = {**ALL, "lora": True, "rank": 2, "parts": "ffn", "profile": "flat"}
    bert = modules(bound().compile(point))
    assert {part for kind, _, part, _ in bert if kind == "lora"} == {"up", "down"}
    llama = bound(shapes=llama_shapes())
    assert {part for kind, _, part, _ in modules(llama.compile(point)) if kind == "lora"} == {"up", "gate", "down"}
    with pytest.raises(InfeasibleError, match="tunes nothing"):
        llama.compile({**ALL, "k": 10})  # BitFit alone, on a backbone without biases


def test_learning_rate_has_three_digits() -> None:
    assert bound().compile({**ALL, "rate": 0.00123456}).learning_rate == 0.00123
    assert bound(learning_rate=0.01, parameters=_without("rate")).compile(_without_rate(ALL)).learning_rate == 0.01


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in DEFINITION["parameters"].items() if key != name}


def _without_rate(point: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key != "rate"}


def test_size_per_layer() -> None:
    changes = {
        "parameters": {
            "on": {"type": "bool", "per_layer": True},
            "rank": {"type": "int", "low": 1, "high": 8, "per_layer": True, "when": {"on": True}},
        },
        "modules": {"lora": {"when": {"on": True}, "size": "rank", "parts": ["q"]}},
        "layers": "all",
        "learning_rate": 1e-3,
    }
    point = {"on_0": True, "on_1": False, "on_2": False, "on_3": True, "rank_0": 5, "rank_3": 2}
    assert modules(bound(**changes).compile(point)) == {("lora", 5, "q", 0), ("lora", 2, "q", 3)}


def test_two_rules_of_a_type_at_different_parts() -> None:
    changes = {
        "parameters": {"rank": {"type": "int", "low": 1, "high": 8}},
        "modules": {
            "attention_lora": {"type": "lora", "size": "rank", "parts": ["q"]},
            "ffn_lora": {"type": "lora", "size": 3, "parts": ["down"]},
        },
        "layers": "all",
        "learning_rate": 1e-3,
    }
    found = modules(bound(**changes).compile({"rank": 7}))
    assert found == {item for layer in range(4) for item in (("lora", 7, "q", layer), ("lora", 3, "down", layer))}


def test_the_budget_is_used_up_to_the_next_step() -> None:
    point = {**ALL, "k": 0, "lora": True, "rank": 16, "parts": "ffn", "profile": "increasing"}
    free = bound()
    full = free.parameter_count(free.compile(point))
    for budget in (full, full - 1, full // 2, full // 10):
        tight = bound(budget)
        found = tight.parameter_count(tight.compile(point))
        assert 0.8 * budget < found <= budget


def test_reject_refuses_what_scale_would_shrink() -> None:
    needed = bound().parameter_count(bound().compile(ALL))
    fits, not_quite = bound(needed, budget="reject"), bound(needed - 1, budget="reject")
    assert fits.parameter_count(fits.compile(ALL)) == needed
    with pytest.raises(InfeasibleError, match=f"needs {needed:,} parameters, but the budget is {needed - 1:,}"):
        not_quite.compile(ALL)
