"""Dropout streams. Oracles: independence of everything that must not matter, and statistics of fair bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.modules._dropout import Dropout, random_bits
from autopeft.modules._layout import RowLayout
from autopeft.modules._stack import Stack


def make(seeds=(7,), rates=(0.5,), key="layers.0.q.lora", owners=None):
    layout = RowLayout(seeds, dtype=torch.float32, device=torch.device("cpu"))
    layout.is_training = True
    owners = range(len(seeds)) if owners is None else owners
    stack = Stack(key, layout, owners, [{"A": torch.zeros(1)}] * len(owners))
    return layout, stack, Dropout(stack, rates)


def keys(*values):
    return torch.tensor(values, dtype=torch.int32)


def test_make_is_none_where_nobody_drops():
    _, stack, _ = make()
    assert Dropout.make(stack, [0.0]) is None
    assert Dropout.make(stack, [0.1]) is not None


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), st.integers(0, 3), st.integers(-(2**31), 2**31 - 1))
def test_bits_depend_on_the_place_alone(rows, positions, features, first_row, key):
    """Oracle: the corner of a larger batch, shifted by the first row."""
    large = random_bits(keys(key, 5), torch.Size((9, 8, 11)))
    small = random_bits(keys(key), torch.Size((rows, positions, features)), first_row)
    assert torch.equal(small[0], large[0, first_row : first_row + rows, :positions, :features])


def test_bits_are_fair():
    """Each of the 32 bits is one half of the time, within five standard errors."""
    n = 2**18
    bits = random_bits(keys(1), torch.Size((64, 64, 64)))
    shares = torch.stack([((bits >> i) & 1).float().mean() for i in range(32)])
    assert (shares - 0.5).abs().max() < 5 * 0.5 / n**0.5


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("distance", [1, 2, 3])
def test_neighbours_are_independent(axis, distance):
    """Neighbouring keep decisions agree half of the time, along every axis."""
    kept = random_bits(keys(3), torch.Size((64, 64, 64))) >= 0
    size = 64 - distance
    left, right = kept.narrow(axis, 0, size), kept.narrow(axis, distance, size)
    assert abs((left == right).float().mean().item() - 0.5) < 5 * 0.5 / left.numel() ** 0.5


def test_streams_are_independent():
    """Masks of other seeds, steps, sites and candidates agree half of the time."""
    x = torch.ones(1, 32, 16, 32)
    masks = []
    for seed, key, step in ((7, "a", 0), (8, "a", 0), (7, "b", 0), (7, "a", 1), (7, "a", 2)):
        layout, _, dropout = make(seeds=(seed,), key=key)
        layout.step = step
        masks.append(dropout(x) > 0)
    for i, left in enumerate(masks):
        for right in masks[:i]:
            assert abs((left == right).float().mean().item() - 0.5) < 5 * 0.5 / left.numel() ** 0.5


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_rate_and_scale(rate):
    _, _, dropout = make(rates=(rate,))
    x = torch.full((1, 64, 32, 32), 2.0)
    result = dropout(x)
    kept = result[result != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / (1 - rate)))
    assert abs(len(kept) / x.numel() - (1 - rate)) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5


def test_companions_do_not_matter():
    """Candidate 2 of four, at another rate, gets the mask it gets alone, also after the others are gone."""
    x = torch.randn(1, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    _, _, alone = make(seeds=(30,), rates=(0.4,))
    layout, stack, dropout = make(seeds=(10, 20, 30, 40), rates=(0.1, 0.4, 0.0), owners=(0, 2, 3))
    assert torch.equal(dropout(x.expand(3, -1, -1, -1))[1], alone(x)[0])
    layout.active = (3, 2)
    stack.select()
    assert torch.equal(dropout(x.expand(2, -1, -1, -1))[1], alone(x)[0])
    assert torch.equal(dropout(x.expand(2, -1, -1, -1))[0], x[0])


def test_micro_batches_together_are_the_batch():
    layout, _, dropout = make()
    x = torch.randn(1, 6, 3, 8, generator=torch.Generator().manual_seed(0))
    whole = dropout(x)
    parts = []
    for first in (0, 2, 4):
        layout.first_row = first
        parts.append(dropout(x[:, first : first + 2]))
    assert torch.equal(torch.cat(parts, 1), whole)


def test_gradient_is_the_mask():
    _, _, dropout = make(rates=(0.25,))
    x = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = dropout(x)
    result.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), result.detach())
