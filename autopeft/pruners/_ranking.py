"""An order of points that are better in different ways: front by front, spread out within each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autopeft.objectives import non_dominated_mask

Array = npt.NDArray[np.float64]


def rank(values: Array) -> list[int]:
    """Rows from best to worst: front by front, and by an epsilon-net within each.

    Args:
        values: All-maximise values on comparable scales (n x m).
    """
    left = np.arange(len(values))
    order: list[int] = []
    while len(left):
        mask = non_dominated_mask(values[left])
        order += epsilon_net(values, left[mask].tolist())
        left = left[~mask]
    return order


def epsilon_net(values: Array, rows: list[int]) -> list[int]:
    """Some rows in an order in which each is the farthest from all before it; of equals the first.

    The first row is the best one in the first column.
    """
    found = [max(rows, key=lambda row: (values[row, 0], -row))]
    left = [row for row in rows if row != found[0]]
    while left:
        distances = np.linalg.norm(values[left][:, None] - values[found][None], axis=2).min(axis=1)
        found.append(left.pop(int(distances.argmax())))
    return found
