"""Oracle: counts written out, and the definition of each cost."""

import pytest

from autopeft.configuration import KNOWN_COSTS, Configuration, ModuleSpec, Site, export_class, known_costs
from autopeft.modules import MODULES
from autopeft.objectives import COSTS
from tests.configuration.examples import bert_shapes

SHAPES = bert_shapes()
LORA = (Site(layer=0, part="q"), ModuleSpec.make("lora", 4))
ADAPTER = (Site(layer=1, part="ffn"), ModuleSpec.make("serial_adapter", 8))


def costs(*pairs: tuple[Site, ModuleSpec]) -> dict[str, float]:
    return known_costs(Configuration.make(list(pairs), learning_rate=1e-3), SHAPES, MODULES)


def test_lora_is_stored_and_merged() -> None:
    n = 4 * (384 + 384)
    assert costs(LORA) == {"trainable_parameters": n, "stored_bytes": 4 * n, "inference_flops_per_token": 0}


def test_an_adapter_stays_and_computes() -> None:
    n = 2 * 384 * 8 + 8 + 384
    assert costs(ADAPTER) == {"trainable_parameters": n, "stored_bytes": 4 * n, "inference_flops_per_token": 2 * n}


def test_costs_of_modules_add_up() -> None:
    both, one, other = costs(LORA, ADAPTER), costs(LORA), costs(ADAPTER)
    assert both == {name: one[name] + other[name] for name in KNOWN_COSTS}


def test_every_known_cost_is_an_objective_that_is_known_and_no_other_is() -> None:
    assert set(KNOWN_COSTS) == {name for name, item in COSTS.items() if item.is_known}


@pytest.mark.parametrize(("name", "expected"), [("lora", "lora"), ("bitfit", "merge"), ("serial_adapter", "own")])
def test_export_classes(name: str, expected: str) -> None:
    assert export_class(name, MODULES) == expected


def test_a_type_that_does_not_say_needs_our_own_code() -> None:
    assert export_class("nameless", {"nameless": object()}) == "own"  # type: ignore[dict-item]
