"""Oracle: membership of points drawn at random, and hypervolumes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.objectives import hypervolume
from autopeft.samplers._boxes import Boxes


def edges(boxes: Boxes, front: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corners (b x m) of one front's boxes."""
    mine = boxes.front[boxes.lower[:, 0]] == front
    corners = [
        np.column_stack([column[ends[mine, j]] for j, column in enumerate(boxes.levels)])
        for ends in (boxes.lower, boxes.upper)
    ]
    return corners[0], corners[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 12), st.booleans(), st.integers(0, 10_000))
def test_every_point_that_is_not_dominated_is_in_exactly_one_box(m: int, n: int, tied: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fronts = [rng.integers(0, 5, (k, m)) / 4 if tied else rng.normal(size=(k, m)) for k in (n, n // 2, n)]
    if tied:  # one objective follows from another, as stored bytes do from parameters
        fronts = [np.hstack([points[:, :-1], 2 * points[:, :1]]) for points in fronts]
    reference = np.full(m, -0.4)
    boxes = Boxes.outside(fronts, reference)
    for i, points in enumerate(fronts):
        lower, upper = edges(boxes, i)
        probes = rng.uniform(-1, 3, (50, 1, m))
        free = (probes > reference).all(axis=(1, 2)) & ~(points > probes).all(axis=2).any(axis=1)
        counted = ((lower <= probes) & (probes < upper)).all(axis=2).sum(axis=1)
        assert counted.tolist() == free.astype(int).tolist()


@pytest.mark.parametrize("m", [2, 3, 4])
def test_what_a_point_adds_is_its_share_of_the_boxes(m: int) -> None:
    rng = np.random.default_rng(m)
    points, reference = rng.random((15, m)), np.zeros(m)
    lower, upper = edges(Boxes.outside([points], reference), 0)
    for new in rng.random((10, m)) + 0.3:
        added = np.clip(np.minimum(new, upper) - lower, 0, None).prod(axis=1).sum()
        gain = hypervolume(np.vstack([points, new]), reference) - hypervolume(points, reference)
        assert added == pytest.approx(gain, abs=1e-12)


def test_there_are_two_boxes_for_each_of_three_objectives_and_one_more() -> None:
    front = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    assert len(Boxes.outside([front], np.zeros(3)).lower) == 61
