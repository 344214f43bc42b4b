from __future__ import annotations

import numpy as np
import pytest
import torch

from autopeft.modules import inject
from autopeft.training._target_scale import TargetScale, head_has_bias
from tests.tiny import tiny_backbone
from tests.training.toys import lora


def test_standardized_targets_have_mean_zero_and_deviation_one():
    targets = np.array([10.0, 30.0, 80.0])
    scale = TargetScale.of(targets, has_bias=True)
    standardized = scale.standardize(torch.from_numpy(targets))
    assert standardized.mean().item() == pytest.approx(0, abs=1e-12)
    assert standardized.std(correction=0).item() == pytest.approx(1)
    torch.testing.assert_close(scale.naturalize(standardized), torch.from_numpy(targets))


def test_without_a_bias_the_mean_stays():
    scale = TargetScale.of(np.array([3.0, 4.0]), has_bias=False)
    assert (scale.mean, scale.deviation) == (0.0, pytest.approx(np.sqrt(12.5)))


def test_constant_targets_are_not_divided_by_zero():
    assert TargetScale.of(np.array([2.0, 2.0]), has_bias=True).deviation == 1.0


def test_folded_state_gives_natural_values():
    state = {
        "head.dense.weight": torch.randn(3, 3),
        "head.out.weight": torch.randn(1, 3),
        "head.out.bias": torch.randn(1),
    }
    x, scale = torch.randn(5, 3), TargetScale(mean=7.0, deviation=3.0)
    expected = scale.naturalize(x @ state["head.out.weight"].T + state["head.out.bias"])
    folded = scale.fold(state)
    torch.testing.assert_close(x @ folded["head.out.weight"].T + folded["head.out.bias"], expected)
    assert folded["head.dense.weight"] is state["head.dense.weight"]


@pytest.mark.parametrize(("architecture", "expected"), [("bert", True), ("roberta", True), ("gpt2", False)])
def test_bias_of_the_head_is_found(architecture, expected):
    with inject(tiny_backbone(architecture, n_labels=1), [lora((0,))], seeds=[0]) as injection:
        assert head_has_bias(injection.parameters) is expected
