"""What the adapters share. Oracles: the definition of a bottleneck, and numbers."""

import pytest
import torch

from autopeft.configuration import Site
from autopeft.modules import inject
from autopeft.modules._adapter import ACTIVATIONS, block_ends, bottleneck_count, end_shapes
from tests.modules.cases import configuration, spec


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_keep_padding_silent(name):
    """Padding relies on f(0) = 0."""
    assert ACTIVATIONS[name](torch.zeros(1)).item() == 0


def test_count_is_two_linears():
    first, last = torch.nn.Linear(7, 3), torch.nn.Linear(3, 5)
    assert bottleneck_count(7, 3, 5) == sum(p.numel() for layer in (first, last) for p in layer.parameters())


def test_ends_of_blocks(bert, llama):
    assert block_ends(Site(layer=0, part="ffn")) == ("up", "down")
    assert block_ends(Site(layer=0, part="attention")) == ("q", "o")
    for backbone in (bert, llama):
        first, last = end_shapes(Site(layer=0, part="ffn"), backbone.shapes)
        assert (first.in_features, last.out_features) == (32, 32)
        assert end_shapes(Site(layer=3, part="ffn"), backbone.shapes) is None


def test_initial_values(bert):
    """Down projection within 1/sqrt(in), everything else zero."""
    with inject(bert, [configuration((0, "ffn", spec("parallel_adapter", 16)))], seeds=[0]) as injection:
        state = {name.rpartition(".")[2]: value for name, value in injection.state_dict(0).items() if "ffn" in name}
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "down_weight": (16, 32),
        "down_bias": (16,),
        "up_weight": (32, 16),
        "up_bias": (32,),
    }
    assert 0.95 / 32**0.5 < state["down_weight"].abs().max() <= 1 / 32**0.5
    assert all(state[name].abs().max() == 0 for name in ("down_bias", "up_weight", "up_bias"))
