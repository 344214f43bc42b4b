"""Maximising an acquisition function over feasible configurations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from autopeft.samplers._points import Point, PointSource

Array = npt.NDArray[np.float64]
Score = Callable[[Sequence[Point]], Array]

#: Uniform draws in the pool.
_N_DRAWS = 160
#: Incumbents whose neighbours join the pool.
_MAX_INCUMBENTS = 6
#: Best points of the pool from which the search climbs, and how often each may step.
_N_STARTS = 3
_MAX_STEPS = 6


def maximize(
    score: Score, points: PointSource, *, incumbents: Sequence[Point], rng: np.random.Generator, taken: Collection[str]
) -> Point | None:
    """Find a feasible and new point of high score.

    A pool of uniform draws and of the incumbents' one-exchange neighbours is scored; from its best points the search
    climbs to the best neighbour as long as that is better.

    Args:
        score: Larger is better; called with batches of points. NaN counts as the worst.
        points: The space.
        incumbents: Good points to start from, best first, taken ones included.
        rng: Draws the pool and the steps.
        taken: Fingerprints that must not come back.

    Returns:
        The best point found; None if the space is exhausted.
    """
    scored: dict[str, tuple[float, Point]] = {}

    def add(candidates: Sequence[Point]) -> list[tuple[float, Point]]:
        """Score what is new; the (score, point) pairs of all candidates that may be proposed."""
        allowed = {point.fingerprint: point for point in candidates if point.fingerprint not in taken}
        new = [point for fingerprint, point in allowed.items() if fingerprint not in scored]
        if new:
            values = np.nan_to_num(score(new), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
            scored.update({point.fingerprint: (float(value), point) for point, value in zip(new, values, strict=True)})
        return [scored[fingerprint] for fingerprint in allowed]

    pool = points.pool(rng, _N_DRAWS, taken)
    for incumbent in incumbents[:_MAX_INCUMBENTS]:
        pool += points.neighbours(incumbent, rng)
    ranked = sorted(add(pool), key=_value, reverse=True)
    if not ranked:
        rest = points.fresh(rng, 1, taken)
        return rest[0] if rest else None
    for value, point in ranked[:_N_STARTS]:
        for _ in range(_MAX_STEPS):
            better = max(add(points.neighbours(point, rng)), key=_value, default=(value, point))
            if better[0] <= value:
                break
            value, point = better
    return max(scored.values(), key=_value)[1]


def _value(pair: tuple[float, Point]) -> float:
    return pair[0]
