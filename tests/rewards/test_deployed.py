from __future__ import annotations

import numpy as np
import pytest
import torch

from autopeft.configuration import ModuleSpec
from autopeft.rewards._deployed import deployed, plain_outputs, split_by_merge
from tests.rewards.candidates import on_candidate, placed
from tests.training.toys import lora, toy_task

LORA = ModuleSpec.make("lora", 4)
ADAPTER = ModuleSpec.make("serial_adapter", 4)
EXPERTS = ModuleSpec.make("moe_lora", 2, experts=2)
IA3 = ModuleSpec.make("ia3")
PREFIX = ModuleSpec.make("prefix", 3)

#: Configuration, and the share of its modules that is merged.
CASES = {
    "head": (lora(()), 1.0),
    "lora": (lora((0, 2)), 1.0),
    "bias and norms": (placed((0, "bias", ModuleSpec.make("bitfit")), (1, "norm", ModuleSpec.make("layer_norm"))), 1.0),
    "adapter": (placed((1, "ffn", ADAPTER)), 0.0),
    "lora beside an adapter": (placed((0, "q", LORA), (0, "down", LORA), (1, "ffn", ADAPTER)), 2 / 3),
    "lora below a prefix": (placed((0, "v", LORA), (1, "attention", PREFIX)), 0.5),
    "lora and experts at one map": (placed((1, "q", LORA), (1, "q", EXPERTS)), 0.5),
    # Scaling the weight would not scale what the experts add: here nothing may be merged.
    "scale and experts at one map": (placed((1, "q", IA3), (1, "q", EXPERTS), rate=0.1), 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_deployed_model_computes_what_the_candidate_computes(name):
    configuration, share = CASES[name]

    def look(candidate):
        resident, rows = candidate.resident(candidate.data), np.arange(24)
        expected = candidate.outputs()
        with deployed(candidate) as found:
            return expected, plain_outputs(candidate, resident, rows).numpy(), found

    (expected, outputs, found), _ = on_candidate(look, configuration, epochs=4)
    np.testing.assert_allclose(outputs, expected, rtol=2e-3, atol=2e-4)
    assert found.merged_share == pytest.approx(share)


def test_merged_part_needs_no_bytes_and_the_rest_its_tensors():
    def look(candidate):
        with deployed(candidate) as found:
            state = candidate.state()
            own = sum(value.numel() for name, value in state.items() if "serial_adapter" in name)
            return found.added_bytes, 4 * own

    (found, expected), _ = on_candidate(look, CASES["lora beside an adapter"][0])
    assert found == expected > 0
    (found, _), _ = on_candidate(look, CASES["lora"][0])
    assert found == 0


def test_backbone_is_back_bit_for_bit_even_after_an_error():
    def look(candidate):
        model = candidate.backbone.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        tensors = {name: id(value) for name, value in model.named_parameters()}
        with pytest.raises(RuntimeError), deployed(candidate):
            raise RuntimeError
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return tensors == {name: id(value) for name, value in model.named_parameters()}

    is_same, _ = on_candidate(look, CASES["lora beside an adapter"][0])
    assert is_same


def test_regression_is_deployed_in_natural_values():
    def look(candidate):
        with deployed(candidate):
            found = plain_outputs(candidate, candidate.resident(candidate.data), np.arange(24)).numpy()
        return found, candidate.outputs()

    (found, expected), _ = on_candidate(look, task=toy_task(regression=True))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_split_keeps_every_module_once():
    configuration = CASES["lora beside an adapter"][0]
    (merged, rest), _ = on_candidate(split_by_merge, configuration)
    assert {item.module.type for item in merged.placements} == {"lora"}
    assert {item.module.type for item in rest.placements} == {"serial_adapter"}
    assert sorted([*merged.placements, *rest.placements], key=lambda item: item.sort_key) == list(
        configuration.placements
    )
