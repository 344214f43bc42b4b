"""The serial adapter. Oracle: ordinary torch modules in a copy of the model, trained by the same steps."""

import pytest
import torch
from torch import nn

from autopeft.modules import inject
from tests.modules.adapter_twin import AdaptedBlock
from tests.modules.cases import configuration, disturb, spec
from tests.modules.peft_twin import trained_logits
from tests.tiny import ARCHITECTURES


@pytest.mark.parametrize(("part", "ends"), [("ffn", ("up", "down")), ("attention", ("q", "o"))])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_plain_modules_after_three_steps(backbone_of, architecture, part, ends):
    backbone = backbone_of(architecture)
    chosen = configuration((1, part, spec("serial_adapter", 5, activation="gelu", scale=1.3)))
    with inject(backbone, [chosen], seeds=[0]) as injection:
        disturb(injection)
        initial = injection.state_dict(0)
    initial |= {f"head.{name}": value for name, value in backbone.head_state().items()}
    twin = AdaptedBlock(backbone, 1, *ends)
    twin.add("serial", f"layers.1.{part}.serial_adapter", initial, nn.GELU(), 1.3)
    _, ours = trained_logits(backbone, chosen, initial, "sgd")
    before = twin.logits()
    theirs = twin.trained_logits(backbone.head_paths, "sgd")
    assert (theirs - before).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_defaults_are_relu_and_scale_one(bert):
    chosen = [
        configuration((1, "ffn", spec("serial_adapter", 5))),
        configuration((1, "ffn", spec("serial_adapter", 5, activation="relu", scale=1.0))),
    ]
    x = torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(0))
    with inject(bert, chosen, seeds=[0, 0]) as injection:
        disturb(injection)
        injection.load_state_dict(1, injection.state_dict(0))
        first, second = bert.linear(1, "down").module(x.repeat(2, 1, 1)).chunk(2)
    assert torch.equal(first, second)
