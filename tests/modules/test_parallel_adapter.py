"""The parallel adapter, and AutoPEFT's layer. Oracle: ordinary torch modules in a copy of the model."""

import pytest
import torch
from torch import nn

from autopeft.configuration import parameter_count
from autopeft.modules import MODULES, inject
from tests.modules.adapter_twin import AdaptedBlock
from tests.modules.cases import AUTOPEFT_LAYER, configuration, disturb, spec
from tests.modules.peft_twin import trained_logits
from tests.tiny import ARCHITECTURES, tiny_batch


@pytest.mark.parametrize(("part", "ends"), [("ffn", ("up", "down")), ("attention", ("q", "o"))])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_beside_a_serial_adapter_equals_plain_modules_after_three_steps(backbone_of, architecture, part, ends):
    """The serial adapter reads the block's output without the parallel one's."""
    backbone = backbone_of(architecture)
    chosen = configuration(
        (1, part, spec("parallel_adapter", 4, activation="tanh")), (1, part, spec("serial_adapter", 3))
    )
    with inject(backbone, [chosen], seeds=[0]) as injection:
        disturb(injection)
        initial = injection.state_dict(0)
    initial |= {f"head.{name}": value for name, value in backbone.head_state().items()}
    twin = AdaptedBlock(backbone, 1, *ends)
    twin.add("serial", f"layers.1.{part}.serial_adapter", initial, nn.ReLU(), 1.0)
    twin.add("parallel", f"layers.1.{part}.parallel_adapter", initial, nn.Tanh(), 4.0)
    _, ours = trained_logits(backbone, chosen, initial, "sgd")
    before = twin.logits()
    theirs = twin.trained_logits(backbone.head_paths, "sgd")
    assert (theirs - before).abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_autopeft_layer(backbone_of, architecture):
    """Serial, parallel and prefix on one layer: counts add up, all learn, and all go."""
    backbone, batch = backbone_of(architecture), tiny_batch()
    chosen = configuration(*AUTOPEFT_LAYER)
    plain = backbone.forward(**batch)
    with inject(backbone, [chosen], seeds=[0]) as injection:
        assert injection.candidate_parameter_count(0) == parameter_count(chosen, backbone.shapes, MODULES)
        disturb(injection)
        backbone.forward(**batch).square().sum().backward()
        reached = {
            item.name.split(".")[3]
            for item in injection.parameters
            if item.tensor.grad.abs().max() > 0 and not item.name.startswith("head.")
        }
    assert reached == {"serial_adapter", "parallel_adapter", "prefix"}
    assert torch.equal(backbone.forward(**batch), plain)


def test_notes_no_input_beyond_the_block(bert):
    """The input is forgotten when the block ends: an evaluation must not keep activations alive."""
    with inject(bert, [configuration((1, "ffn", spec("parallel_adapter", 2)))], seeds=[0]):
        first, last = (bert.linear(1, part).module for part in ("up", "down"))
        bert.forward(**tiny_batch())
        with pytest.raises(RuntimeError, match="the block ended before it began"):
            last(torch.zeros(1, 1, 64))
        first(torch.zeros(1, 1, 32))
        last(torch.zeros(1, 1, 64))
