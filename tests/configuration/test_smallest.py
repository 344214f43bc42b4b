"""Oracle: every point of a small space, continuous dimensions at their ends."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from autopeft.configuration import BackboneShapes, BoundSpace, parse_search_space
from tests.configuration.examples import TYPES, bert_shapes, llama_shapes

RATE = {"type": "float", "low": 1e-3, "high": 1e-2}
FAMILIES = {
    "name": "families",
    "description": "Switched families.",
    "parameters": {
        "lora": {"type": "bool"},
        "adapter": {"type": "bool"},
        "deep": {"type": "bool", "when": {"adapter": True}},
        "rank": {"type": "int", "low": 3, "high": 5, "when": {"lora": True}},
        "parts": {"type": "categorical", "choices": ["all", "down", "v"], "when": {"lora": True}},
        "gate": {"type": "categorical", "choices": ["top", "bits"]},
        "share": {"type": "float", "low": 0.6, "high": 1.0, "when": {"gate": "top"}},
        "bit": {"type": "bool", "layer_groups": 2, "when": {"gate": "bits"}},
        "rate": RATE,
    },
    "modules": {
        "lora": {
            "when": {"lora": True},
            "size": "rank",
            "parts": {"parameter": "parts", "lists": {"all": ["q", "v", "down"], "down": ["down"], "v": ["v"]}},
        },
        "serial_adapter": {"when": {"adapter": True, "deep": True}, "size": 2, "parts": ["ffn"]},
        "bitfit": {"when": {"adapter": True}, "parts": ["bias"]},
    },
    "layers": {"parameter": "gate", "rules": {"top": {"top_share": "share"}, "bits": {"bits": "bit"}}},
    "learning_rate": "rate",
    "budget": "scale",
}
HALVINGS = {
    "name": "halvings",
    "description": "Sizes that may vanish.",
    "parameters": {
        "a": {"type": "int", "low": 0, "high": 6},
        "b": {"type": "int", "low": 0, "high": 6},
        "bit": {"type": "bool", "per_layer": True},
    },
    "modules": {
        "serial_adapter": {"size": {"hidden_size_halvings": "a"}, "parts": ["ffn"]},
        "prefix": {"size": {"hidden_size_halvings": "b"}, "parts": ["attention"]},
    },
    "layers": {"bits": "bit"},
    "learning_rate": 1e-3,
    "budget": "reject",
}


def uneven() -> BackboneShapes:
    """A wide layer below two narrow ones and above one more narrow one."""
    narrow, wide = bert_shapes(hidden=32, ffn=64, heads=4).layers[0], llama_shapes(hidden=64).layers[0]
    return BackboneShapes(
        architecture="bert",
        hidden_size=32,
        layers=(narrow, wide, narrow, narrow),
        embedding_parameters=0,
        parameters=10_000,
    )


def every_point(space: BoundSpace) -> Iterator[dict[str, Any]]:
    domains = [item.values or (item.low, item.high) for item in space.parameters]
    for values in product(*domains):
        yield dict(zip((item.name for item in space.parameters), values, strict=True))


@pytest.mark.parametrize("budget", ["scale", "reject"])
@pytest.mark.parametrize("definition", [FAMILIES, HALVINGS], ids=["families", "halvings"])
@pytest.mark.parametrize(
    "shapes",
    [bert_shapes(n_layers=3, hidden=32, ffn=64, heads=4), llama_shapes(n_layers=3), uneven()],
    ids=["bert", "llama", "uneven"],
)
def test_smallest_is_smallest(definition: dict[str, Any], shapes: BackboneShapes, budget: str) -> None:
    space = BoundSpace(
        space=parse_search_space({**definition, "budget": budget}, TYPES), shapes=shapes, module_types=TYPES
    )
    smallest = space.smallest()
    least = space.parameter_count(smallest)
    compiled = [space.compile(point) for point in every_point(space) if space.is_feasible(point)]
    if budget == "reject":
        assert least == min(map(space.parameter_count, compiled))
        assert smallest in compiled
    else:
        below, exactly = (
            BoundSpace(space=space.space, shapes=shapes, module_types=TYPES, budget=cap) for cap in (least - 1, least)
        )
        assert not any(below.is_feasible(point) for point in every_point(below))
        assert smallest.placements in {
            exactly.compile(point).placements for point in every_point(exactly) if exactly.is_feasible(point)
        }
