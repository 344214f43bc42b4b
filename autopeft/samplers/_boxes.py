"""What a set of points does not dominate, as boxes that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The part above a reference point that no member of a front dominates, for several fronts at once.

    Args:
        levels: Per objective the coordinates at which boxes end, of one front after the other (l,); infinity among
            them.
        front: Which front each level belongs to (l,); the same for all objectives.
        lower: Indices into the levels (b x m): where each box begins, all-maximise.
        upper: Where it ends.
    """

    levels: tuple[Array, ...]
    front: Indices
    lower: Indices
    upper: Indices

    @classmethod
    def outside(cls, fronts: Sequence[Array], reference: Array) -> Boxes:
        """Cut up the space that is left by each front.

        The boxes belong to the local bounds of the front, which are updated point by point, and are of no more than
        2 n + 1 for three objectives (Klamroth, Lacour and Vanderpooten, "On the representation of the search region in
        multi-objective optimization", European Journal of Operational Research 245, 2015; Lacour, Klamroth and Fonseca,
        "A box decomposition algorithm to compute the hypervolume indicator", arXiv 1510.01963). That holds where no
        two points share a coordinate, so that ranks stand for coordinates: ties are broken by position, and the boxes
        between them are empty.

        Args:
            fronts: All-maximise points (n_i x m) each; dominated ones do no harm.
            reference: All-maximise reference point (m,).
        """
        fronts = [points[(points > reference).all(axis=1)] for points in fronts]
        n_objectives = len(reference)
        sizes = np.array([len(points) for points in fronts])
        starts = np.concatenate([[0], np.cumsum(sizes + 2)])
        ranks = np.full((len(fronts), int(sizes.max(initial=0)), n_objectives), np.iinfo(np.int16).max, dtype=np.int16)
        levels = []
        for j in range(n_objectives):
            parts = []
            for i, points in enumerate(fronts):
                order = np.argsort(-points[:, j], kind="stable")
                ranks[i, order, j] = np.arange(1, len(points) + 1)
                parts.append(np.concatenate([[np.inf], points[order, j], reference[j : j + 1]]))
            levels.append(np.concatenate(parts))
        owner, lower, upper = _local_bounds(ranks, sizes)
        lower, upper = lower + starts[owner, None], upper + starts[owner, None]
        wide = np.ones(len(owner), dtype=bool)
        for j, column in enumerate(levels):
            wide &= column[upper[:, j]] > column[lower[:, j]]
        return cls(
            levels=tuple(levels),
            front=np.repeat(np.arange(len(fronts)), sizes + 2),
            lower=lower[wide],
            upper=upper[wide],
        )


def _local_bounds(ranks: npt.NDArray[np.int16], sizes: Indices) -> tuple[Indices, Indices, Indices]:
    """Boxes that fronts leave, in ranks: 0 is unattainably good, 1 the best of a front, its size + 1 the reference.

    Args:
        ranks: Of the fronts' points in each objective (f x n x m), the largest integer where a front has fewer points.
        sizes: Of the fronts (f,).

    Returns:
        The front (b,) of each box, its worse ends (b x m) and its better ends (b x m).
    """
    n_fronts, n_steps, m = ranks.shape
    owner = np.arange(n_fronts)
    bounds = np.repeat((sizes + 1).astype(np.int16)[:, None], m, axis=1)
    # makers[b, k] is the point that gives bound b its coordinate k
    makers = np.zeros((n_fronts, m, m), dtype=np.int16)
    makers[:, np.arange(m), np.arange(m)] = bounds
    for step in range(n_steps):
        points = ranks[owner, step]
        hit = np.flatnonzero((points < bounds).all(axis=1))
        if not len(hit):
            continue
        points, old = points[hit], makers[hit]
        children = [(owner, bounds, makers)]
        for j in range(m):
            others = np.delete(old[:, :, j], j, axis=1)
            keeps = np.flatnonzero(points[:, j] >= others.max(axis=1))
            child, made = bounds[hit[keeps]], old[keeps]
            child[:, j] = points[keeps, j]
            made[:, j] = points[keeps]
            children.append((owner[hit[keeps]], child, made))
        left = np.ones(len(owner), dtype=bool)
        left[hit] = False
        children[0] = (owner[left], bounds[left], makers[left])
        owner, bounds, makers = (np.concatenate(parts) for parts in zip(*children, strict=True))
    better = np.zeros_like(bounds)
    for j in range(1, m):
        better[:, j] = makers[:, :j, j].max(axis=1)
    return owner, bounds.astype(np.int64), better.astype(np.int64)
