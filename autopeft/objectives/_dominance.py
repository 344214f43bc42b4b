"""Dominance and hypervolume on all-maximise arrays (n trials x m objectives)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def non_dominated_mask(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which rows no other row dominates; equal rows all stay.

    Args:
        values: All-maximise values (n x m), finite.

    Returns:
        Mask (n,), True for members of the front.

    Raises:
        ValueError: If a value is not finite: filter to fully measured trials first.
    """
    y = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if y.size == 0:
        return np.zeros(len(y), dtype=bool)
    if not np.isfinite(y).all():
        raise ValueError("dominance is defined for finite values only; filter to fully measured trials first.")
    mask = np.zeros(len(y), dtype=np.bool_)
    # In lexicographic order a row stands before all that it dominates, so the first of those left is a member: one pass
    # per member instead of one per pair of rows.
    left = np.lexsort(-y.T[::-1])
    while len(left):
        best, rest = y[left[0]], y[left]
        equal = (rest == best).all(axis=1)
        mask[left[equal]] = True
        left = left[~(rest <= best).all(axis=1)]
    return mask


def reference_point(values: npt.ArrayLike, *, margin: float = 0.1) -> Array:
    """A point that every row dominates: the worst of each column, moved out by a share of its range.

    Args:
        values: All-maximise values (n x m), n >= 1, finite.
        margin: Share of each column's range; a column without range moves by ``margin`` times its magnitude or 1.

    Returns:
        All-maximise reference point (m,).
    """
    y = np.atleast_2d(np.asarray(values, dtype=np.float64))
    low, span = y.min(axis=0), np.ptp(y, axis=0)
    fallback = np.where(low == 0, 1.0, np.abs(low))
    return np.asarray(low - margin * np.where(span > 0, span, fallback))


def hypervolume(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Volume between the front and a reference point, by slicing along the last objective.

    HV(Y, r) = volume of the union over rows y of the boxes [r, y].

    Args:
        values: All-maximise values (n x m); rows that do not exceed the reference count nothing.
        reference: All-maximise reference point (m,).

    Returns:
        The hypervolume, >= 0, in the product of the objectives' units.
    """
    r = np.asarray(reference, dtype=np.float64)
    y = np.asarray(values, dtype=np.float64).reshape(-1, len(r))
    y = y[(y > r).all(axis=1)]
    if len(y) == 0:
        return 0.0
    return _volume(y[non_dominated_mask(y)] - r)


def _volume(y: Array) -> float:
    """Volume of the union of the boxes [0, y] for rows y > 0 (n x m)."""
    if y.shape[1] == 1:
        return float(y.max())
    y = y[np.argsort(-y[:, -1], kind="stable")]
    if y.shape[1] == 2:
        widths = np.maximum.accumulate(y[:, 0])
        depths = y[:, 1] - np.append(y[1:, 1], 0.0)
        return float((widths * depths).sum())
    total = 0.0
    for i in range(len(y)):
        depth = y[i, -1] - (y[i + 1, -1] if i + 1 < len(y) else 0.0)
        if depth > 0:
            slab = y[: i + 1, :-1]
            total += depth * _volume(slab[non_dominated_mask(slab)])
    return total
