from __future__ import annotations

import pytest
import torch

from autopeft.training._first_token import first_token_only, reads_first_token
from tests.tiny import DECODERS, ENCODERS, tiny_backbone, tiny_batch


@pytest.mark.parametrize("architecture", ENCODERS)
def test_logits_and_gradients_are_those_of_the_full_layer(architecture):
    # Oracle: the transformers model's own forward pass, and autograd through it.
    backbone = tiny_backbone(architecture)
    batch = tiny_batch(rows=5)
    for layer in (0, 1, 2):
        for part in ("q", "k", "v", "o", "up", "down"):
            backbone.linear(layer, part).module.weight.requires_grad_(True)
    weights = [p for p in backbone.model.parameters() if p.requires_grad]

    def run():
        logits = backbone.forward(**batch)
        return logits.detach(), torch.autograd.grad(logits.square().sum(), weights)

    expected, expected_gradients = run()
    with first_token_only(backbone):
        got, gradients = run()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)
    assert torch.equal(backbone.forward(**batch).detach(), expected)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_last_layer_is_computed_for_one_token(architecture):
    backbone = tiny_backbone(architecture)
    seen = {}
    for part in ("q", "k", "v", "o", "up", "down"):
        module = backbone.linear(2, part).module
        module.register_forward_pre_hook(lambda _, args, part=part: seen.__setitem__(part, args[0].shape[1]))
    with first_token_only(backbone):
        backbone.forward(**tiny_batch(length=9))
    assert seen == {"q": 1, "k": 9, "v": 9, "o": 1, "up": 1, "down": 1}


@pytest.mark.parametrize("architecture", DECODERS)
def test_decoders_are_left_alone(architecture):
    backbone = tiny_backbone(architecture)
    batch = tiny_batch()
    expected = backbone.forward(**batch)
    with first_token_only(backbone):
        assert torch.equal(backbone.forward(**batch), expected)
    assert not reads_first_token(backbone)
