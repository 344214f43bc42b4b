from __future__ import annotations

import pytest
import torch

from autopeft.rewards._live_bytes import LiveBytes, tensor_bytes


def test_peak_of_a_chain_by_hand():
    x = torch.zeros(100)  # 400 bytes
    with LiveBytes([x]) as live:
        a = x + 1  # 400 live
        b = a * 2  # 800
        del a  # 400
        c = torch.cat([b, b])  # 1200, the peak
        del b, c
    assert live.peak == 1200


def test_views_and_known_tensors_cost_nothing():
    x = torch.zeros(10, 10)
    with LiveBytes([x]) as live:
        a = x.t()
        b = x.view(-1)[5:]
        assert live.peak == 0
        c = (x + 0).view(-1)  # one storage, whoever looks at it
        d = c[3:]
        del c
        e = d + d
        del a, b, d, e
    assert live.peak == 400 + 4 * 97


def test_storage_lives_as_long_as_a_view_of_it():
    with LiveBytes([]) as live:
        view = torch.zeros(100)[:1]
        other = torch.zeros(50)
        assert live.peak == 600
        del view
        again = torch.zeros(50)
        del other, again
    assert live.peak == 600


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_module_s_pass_by_hand(mode):
    layers = torch.nn.Sequential(
        torch.nn.Linear(8, 32, bias=False), torch.nn.ReLU(), torch.nn.Linear(32, 2, bias=False)
    )
    x = torch.randn(4, 8)
    with mode(), LiveBytes([x, *layers.parameters()]) as live:
        layers(x)
    # Inner activations before and after the nonlinearity, 4 x 32 numbers each.
    assert live.peak == 2 * 4 * 32 * 4


def test_tied_weights_count_once():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    assert tensor_bytes(model) == 2 * 9 * 4
    model[1].weight = model[0].weight
    assert tensor_bytes(model) == 9 * 4
