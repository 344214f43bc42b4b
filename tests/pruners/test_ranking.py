"""Oracle: peeling fronts by brute force, and the definition of an epsilon-net."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopeft.pruners._ranking import epsilon_net, rank

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def layer_of(values: list[tuple[int, int]]) -> list[int]:
    """Front of each point, 0 the best, by comparing every pair."""
    left, found, layer = set(range(len(values))), [0] * len(values), 0
    while left:
        front = {
            i
            for i in left
            if not any(
                all(a >= b for a, b in zip(values[j], values[i], strict=True)) and values[j] != values[i] for j in left
            )
        }
        for i in front:
            found[i] = layer
        left -= front
        layer += 1
    return found


@given(points)
def test_fronts_come_one_after_the_other(values: list[tuple[int, int]]) -> None:
    order = rank(np.array(values, dtype=float))
    assert sorted(order) == list(range(len(values)))
    layers = layer_of(values)
    assert [layers[row] for row in order] == sorted(layers)


@given(points)
def test_each_point_of_a_net_is_the_farthest_from_those_before(values: list[tuple[int, int]]) -> None:
    y = np.array(values, dtype=float)
    order = epsilon_net(y, list(range(len(y))))
    assert y[order[0], 0] == y[:, 0].max()
    for n in range(1, len(order)):
        nearest = [min(float(np.linalg.norm(y[row] - y[taken])) for taken in order[:n]) for row in order[n:]]
        assert nearest[0] == max(nearest)


def test_net_spreads_out() -> None:
    line = np.array([[x, 1 - x] for x in (0.0, 0.1, 0.2, 0.9, 1.0)])
    assert epsilon_net(line, [0, 1, 2, 3, 4])[:3] == [4, 0, 2]
