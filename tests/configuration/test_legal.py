"""Mistakes of a whole space that no single module shows. Oracle: spaces whose legal points are told by reading them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from autopeft.configuration import BoundSpace, parse_search_space
from autopeft.configuration._legal import illegal_rules
from autopeft.configuration._parse import check_search_space
from autopeft.exceptions import BudgetError, InfeasibleError
from autopeft.modules import MODULES
from tests.configuration.examples import bert_shapes

SHAPES = bert_shapes(n_layers=3, hidden=32, ffn=64, heads=4)
LINEARS = ["q", "k", "v", "o", "up", "gate", "down"]
BIG = {"type": "bool"}
ROUTED = {"experts": {"parameter": "n"}, "top_k": {"parameter": "k"}}
#: Adapters that share factors, n x n x n of them with n terms.
UPPER = {"type": "compacter", "size": 8, "parts": ["ffn"]}
LOWER = {"type": "compacter", "size": 8, "parts": ["attention"]}


def definition(parameters: dict[str, Any], modules: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "odd",
        "description": "Modules that do or do not go together.",
        "parameters": parameters,
        "modules": modules,
        "layers": "all",
        "learning_rate": 0.001,
        "budget": "reject",
    }


#: Name, parameters, modules, and what each problem must say, by its key.
MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "router on a prefix": (
        {},
        {"prefix": {"size": 2, "parts": ["attention"], "options": {"router": "topk"}}},
        {"modules.prefix.options.router": "unknown option"},
    ),
    "mixture at an attention": (
        {},
        {"mix_lora": {"size": 2, "parts": ["attention"]}},
        {"modules.mix_lora.parts": "mix_lora cannot stand at attention; it can at ffn"},
    ),
    "top_k larger than experts": (
        {},
        {"moe_lora": {"size": 2, "parts": ["q"], "options": {"experts": 3, "top_k": 4}}},
        {"modules.moe_lora": "top_k must be at most experts, but got top_k=4 and experts=3"},
    ),
    "top_k larger than any number of experts": (
        {"n": {"type": "int", "low": 2, "high": 4}, "k": {"type": "int", "low": 5, "high": 8}},
        {"mix_lora": {"size": 2, "parts": ["ffn"], "options": ROUTED}},
        {"modules.mix_lora": "top_k must be at most experts"},
    ),
    "drop and grow after a warm pick": (
        {},
        {"sparse": {"size": 1, "parts": LINEARS, "options": {"redo": "rigl", "pick": "gradient"}}},
        {"modules.sparse": "redo=rigl exchanges every entry.*pick=gradient"},
    ),
    "window longer than the interval": (
        {},
        {"sparse": {"size": 1, "parts": ["q"], "options": {"redo": "sm3", "interval": 3, "accumulate": 4}}},
        {"modules.sparse": "accumulate=4 and interval=3"},
    ),
    "shared factors of unequal shapes": (
        {},
        {"upper": {**UPPER, "options": {"terms": 4}}, "lower": {**LOWER, "options": {"terms": 2}}},
        {
            "modules.upper": "option terms is 2 and 4 at different sites.*The space fixes it",
            "modules.lower": "option terms is 2 and 4 at different sites",
        },
    ),
    "shared factors whose searched shapes never agree": (
        {"t": {"type": "categorical", "choices": [2, 8]}},
        {"upper": {**UPPER, "options": {"terms": {"parameter": "t"}}}, "lower": {**LOWER, "options": {"terms": 4}}},
        {"modules.upper": r"Parameters that decide it: t \(terms is", "modules.lower": "upper and lower"},
    ),
    "two that train the same tensors": (
        {},
        {"full": {"parts": ["norm"]}, "layer_norm": {"parts": ["norm"]}},
        {
            "modules.full": "full and layer_norm both train the tensors of norm of layer 0 themselves",
            "modules.layer_norm": "leave one of them out",
        },
    ),
    "a family that another, always there, excludes": (
        {"norms": BIG},
        {"full": {"parts": [*LINEARS, "norm"]}, "layer_norm": {"parts": ["norm"], "when": {"norms": True}}},
        {"modules.layer_norm": "full and layer_norm both train .* Parameters that decide it: norms"},
    ),
    "one expert where there is a lora": (
        {},
        {"mix_lora": {"size": 2, "parts": ["ffn"], "options": {"experts": 1}}, "lora": {"size": 2, "parts": ["up"]}},
        {"modules.mix_lora": "mix_lora and lora both become lora at up of layer 0", "modules.lora": "both become lora"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mismatches_that_the_file_fixes_are_mistakes_of_the_file(name: str) -> None:
    parameters, modules, messages = MISTAKES[name]
    problems = check_search_space(definition(parameters, modules), MODULES)[1]
    assert {problem.partition(": ")[0] for problem in problems} == set(messages)
    for problem in problems:
        key, _, text = problem.partition(": ")
        assert re.search(messages[key], text), text


#: What some points allow is no mistake: the space refuses the other points one by one.
FINE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one value of many": (
        {"t": {"type": "categorical", "choices": [2, 4, 8]}},
        {"upper": {**UPPER, "options": {"terms": {"parameter": "t"}}}, "lower": {**LOWER, "options": {"terms": 4}}},
    ),
    "factors of their own": (
        {},
        {"upper": {**UPPER, "options": {"terms": 8, "shared": False}}, "lower": {**LOWER, "options": {"terms": 4}}},
    ),
    "either or": (
        {"big": BIG},
        {
            "full": {"parts": [*LINEARS, "norm"], "when": {"big": True}},
            "layer_norm": {"parts": ["norm"], "when": {"big": False}},
        },
    ),
    "one expert, and a lora elsewhere": (
        {},
        {"mix_lora": {"size": 2, "parts": ["ffn"], "options": {"experts": 1}}, "lora": {"size": 2, "parts": ["q"]}},
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_what_some_points_allow_is_none(name: str) -> None:
    space = parse_search_space(definition(*FINE[name]), MODULES)
    assert list(illegal_rules(space, MODULES)) == []


def test_without_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no drawn point is legal, the search finds the one in a thousand that is."""
    monkeypatch.setattr("autopeft.configuration._legal._N_DRAWS", 0)
    parameters = {"t": {"type": "int", "low": 2, "high": 60}, "k": {"type": "int", "low": 50, "high": 60}}
    options = {"experts": {"parameter": "t"}, "top_k": {"parameter": "k"}}
    modules = {"moe_lora": {"size": 1, "parts": ["q"], "options": options}}
    assert check_search_space(definition(parameters, modules), MODULES)[1] == []


def test_points_are_refused_with_the_parameters_that_decide() -> None:
    parameters = {
        "a": {"type": "categorical", "choices": [2, 4]},
        "b": {"type": "categorical", "choices": [2, 4], "when": {"low": True}},
        "low": BIG,
    }
    modules = {
        "upper": {**UPPER, "options": {"terms": {"parameter": "a"}}},
        "lower": {**LOWER, "when": {"low": True}, "options": {"terms": {"parameter": "b"}}},
    }
    space = parse_search_space(definition(parameters, modules), MODULES)
    bound = BoundSpace(space=space, shapes=SHAPES, module_types=MODULES)
    assert bound.is_feasible({"a": 4, "low": False})
    assert bound.is_feasible({"a": 4, "low": True, "b": 4})
    with pytest.raises(InfeasibleError, match=r"decide it: a \(terms is 4\), b \(terms is 2\)\.$"):
        bound.compile({"a": 4, "low": True, "b": 2})


def test_a_point_that_trains_tensors_twice_names_the_switches() -> None:
    modules = {
        "full": {"parts": [*LINEARS, "norm"], "when": {"big": True}},
        "layer_norm": {"parts": ["norm"], "when": {"norms": True}},
        "bitfit": {"parts": ["bias"]},
    }
    space = parse_search_space(definition({"big": BIG, "norms": BIG}, modules), MODULES)
    bound = BoundSpace(space=space, shapes=SHAPES, module_types=MODULES)
    for big, norms in ((True, False), (False, True), (False, False)):
        assert bound.is_feasible({"big": big, "norms": norms})
    with pytest.raises(InfeasibleError, match=r"full and layer_norm both train .* decide it: big, norms\.$"):
        bound.compile({"big": True, "norms": True})


def test_a_sparsity_budget_below_the_fewest_entries_per_site() -> None:
    """Size 1 is in + out entries per matrix, 64 for each q and v here: three layers, six sites."""
    parameters = {"entries": {"type": "int", "low": 1, "high": 8}, "where": {"type": "categorical", "choices": ["qv"]}}
    parts = {"parameter": "where", "lists": {"qv": ["q", "v"]}}
    data = {**definition(parameters, {"sparse": {"size": "entries", "parts": parts}}), "budget": "scale"}
    space = parse_search_space(data, MODULES)
    just, below = (BoundSpace(space=space, shapes=SHAPES, module_types=MODULES, budget=n) for n in (384, 383))
    point = {"entries": 5, "where": "qv"}
    assert just.parameter_count(just.compile(point)) == 384
    message = (
        r"needs 384 parameters even with every size at 1 \(1,920 as drawn\), but the budget is 383. "
        r"It has sparse at 6 sites \(entries, where\); leave something out, or raise the budget to 384 or more."
    )
    with pytest.raises(InfeasibleError, match=message):
        below.compile(point)
    with pytest.raises(BudgetError, match="sparse 1 on q,v of 0-2 needs 384 parameters; use --budget 384 or more"):
        below.check_budget()
