"""Stacked tensors. Oracle: plain indexing of blocks of rows."""

import pytest
import torch

from autopeft.exceptions import ConfigurationError
from autopeft.modules._layout import RowLayout
from autopeft.modules._stack import Stack

VALUES = [{"w": torch.arange(2.0 * size).view(size, 2) + 1, "b": torch.full((size,), 1.0 * size)} for size in (3, 1, 2)]


@pytest.fixture
def layout():
    return RowLayout(range(5), dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture
def stack(layout):
    """Candidates 0, 2 and 3 of five, with sizes 3, 1 and 2."""
    return Stack("site", layout, (0, 2, 3), VALUES, transposed=["w"], constants={"scale": (1.0, 2.0, 1.0)})


def test_padding_is_zero_and_leaves_are_float32(stack):
    weight = stack.tensors["w"]
    assert weight.shape == (3, 3, 2)
    assert weight.is_leaf
    assert weight.requires_grad
    assert weight.dtype == torch.float32
    assert torch.equal(weight[1, 1:], torch.zeros(2, 2))
    assert torch.equal(weight[1, :1], VALUES[1]["w"])


def test_counts_and_states_leave_padding_out(stack):
    assert [stack.count(candidate) for candidate in range(5)] == [9, 0, 3, 6, 0]
    state = stack.state(3)
    assert torch.equal(state["site.w"], VALUES[2]["w"].T)
    assert torch.equal(state["site.b"], VALUES[2]["b"])
    assert stack.state(1) == {}


def test_loading_changes_one_candidate(stack):
    before = stack.tensors["w"].detach().clone()
    state = {name: value + 10 for name, value in stack.state(2).items()}
    stack.load(2, state)
    stack.load(1, {})
    assert torch.equal(stack.state(2)["site.w"], state["site.w"])
    after = stack.tensors["w"].detach()
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert torch.equal(after[1, 1:], before[1, 1:])
    with pytest.raises(ConfigurationError, match=r"site\.b must have shape \(1,\), but got \(2,\)"):
        stack.load(2, {**state, "site.b": torch.zeros(2)})


def test_values_survive_a_move_of_the_storage(stack):
    """Optimizers may move leaves into a buffer of their own."""
    moved = stack.tensors["w"].detach() * 2
    stack.tensors["w"].data = moved
    assert torch.equal(stack.value("w"), moved)
    stack.load(0, {name: torch.zeros_like(value) for name, value in stack.state(0).items()})
    assert moved[0].abs().max() == 0


@pytest.mark.parametrize("active", [(0, 1, 2, 3, 4), (0, 2, 3), (3, 0), (4, 2, 1), (2,), (1, 4)])
def test_rows_go_out_and_come_back(layout, stack, active):
    layout.active = active
    stack.select()
    owners = [candidate for candidate in active if candidate in (0, 2, 3)]
    assert stack.n_active == len(owners)
    assert stack.is_everyone == (len(owners) == len(active))
    assert stack.is_alone == (len(active) == 1 == len(owners))
    if not owners:
        return
    x = torch.arange(len(active) * 2 * 4 * 3.0).view(-1, 4, 3)
    by_block = dict(zip(active, x.view(len(active), 2, 4, 3), strict=True))
    wanted = torch.stack([by_block[candidate] for candidate in owners])
    assert torch.equal(stack.rows_of(x), wanted)
    assert torch.equal(stack.blocks(x), wanted.flatten(1, 2))
    row_of = {0: 0, 2: 1, 3: 2}
    assert torch.equal(stack.value("w"), stack.tensors["w"][[row_of[candidate] for candidate in owners]])
    added = stack.add(x, torch.ones(len(owners), 8, 3), 5.0).view(len(active), 2, 4, 3)
    replaced = stack.replace(x, -wanted).view(len(active), 2, 4, 3)
    for position, candidate in enumerate(active):
        is_owner = candidate in owners
        assert torch.equal(added[position], by_block[candidate] + 5 * is_owner)
        assert torch.equal(replaced[position], by_block[candidate] * (-1 if is_owner else 1))
    if not stack.is_everyone:
        own, rest, order = stack.split_rows(len(x))
        assert torch.equal(torch.cat([x[own], x[rest]])[order], x)
        assert torch.equal(x[own], wanted.flatten(0, 1))
        assert sorted([*own.tolist(), *rest.tolist()]) == list(range(len(x)))


def test_constants_are_one_number_where_all_agree(layout, stack):
    assert stack.constant("scale").flatten().tolist() == [1.0, 2.0, 1.0]
    layout.active = (3, 0)
    stack.select()
    assert stack.constant("scale") == 1.0


def test_names_tell_variants_apart(layout):
    stacks = [Stack("site", layout, (0,), VALUES[:1], variant=name) for name in ("", "relu")]
    assert [item.name for stack in stacks for item in stack.parameters()] == [
        "site.w",
        "site.b",
        "site.w[relu]",
        "site.b[relu]",
    ]
    assert stacks[1].state(0).keys() == {"site.w", "site.b"}


def test_splits_made_in_inference_mode_can_be_trained_with(layout, stack):
    with torch.inference_mode():
        made = stack.split_rows(10)
    assert all(a is b for a, b in zip(made, stack.split_rows(10), strict=True))
    x = torch.ones(10, 1, requires_grad=True)
    x.index_select(0, made[0]).sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 0, 0, 1, 1, 1, 1, 0, 0]
