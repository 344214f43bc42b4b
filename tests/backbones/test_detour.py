import pytest
import torch
from torch import nn

from autopeft.backbones._detour import noting_inputs, start_at


class _Layer(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, hidden_states: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        self.calls += 1
        return hidden_states * self.factor + shift


def _run(layers: nn.ModuleList, value: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        value = layer(value, shift=1.0)
    return value


@pytest.fixture
def layers() -> nn.ModuleList:
    return nn.ModuleList([_Layer(2.0), _Layer(3.0), _Layer(5.0)])


# By hand, from x = 1: layer inputs 1, 3, 10, output 51.
INPUTS = {0: 1.0, 1: 3.0, 2: 10.0, 3: 51.0}


@pytest.mark.parametrize("first_layer", [0, 1, 2, 3])
def test_starting_at_a_layer_ignores_what_came_before(layers: nn.ModuleList, first_layer: int) -> None:
    with start_at(layers, first_layer, torch.tensor(INPUTS[first_layer]), []):
        assert _run(layers, torch.tensor(-7.0)) == 51.0
    assert [layer.calls for layer in layers] == [0] * first_layer + [1] * (3 - first_layer)
    assert _run(layers, torch.tensor(1.0)) == 51.0


def test_entry_modules_are_left_out(layers: nn.ModuleList) -> None:
    embedding = _Layer(100.0)
    with start_at(layers, 1, torch.tensor(3.0), [embedding]):
        assert _run(layers, embedding(torch.tensor(1.0))) == 51.0
    assert embedding.calls == 0
    assert embedding(torch.tensor(1.0)) == 100.0


@pytest.mark.parametrize("wanted", [[0], [3], [0, 1, 2, 3], {2, 1}])
def test_inputs_are_noted_and_nothing_above_is_computed(layers: nn.ModuleList, wanted: list[int]) -> None:
    with noting_inputs(layers, wanted) as notes:
        _run(layers, torch.tensor(1.0))
    assert {key: value.item() for key, value in notes.items()} == {key: INPUTS[key] for key in wanted}
    assert [layer.calls for layer in layers] == [1] * max(wanted) + [0] * (3 - max(wanted))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def test_everything_is_restored_after_an_error(layers: nn.ModuleList) -> None:
    with pytest.raises(ZeroDivisionError), start_at(layers, 2, torch.tensor(0.0), []), noting_inputs(layers, [0]):
        raise ZeroDivisionError
    assert not any("forward" in layer.__dict__ or layer._forward_pre_hooks for layer in layers)
    assert _run(layers, torch.tensor(1.0)) == 51.0


def test_a_forward_that_was_shadowed_before_comes_back(layers: nn.ModuleList) -> None:
    def shadow(hidden_states: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        return hidden_states + 100.0

    layers[0].forward = shadow
    with start_at(layers, 1, torch.tensor(3.0), []):
        assert _run(layers, torch.tensor(1.0)) == 51.0
    assert layers[0].__dict__["forward"] is shadow
