"""How many configurations to train as one batch."""

from __future__ import annotations

from collections.abc import Callable

from autopeft.exceptions import OutOfMemoryError
from autopeft.training._probe import Probe

#: Beyond it a batch of 16 rows each fills any single GPU, and early stops would leave it half empty.
MAX_COHORT = 64
#: A doubling must bring at least this speed-up per candidate.
_MIN_GAIN = 1.05


def choose_cohort_size(probe: Callable[[int], Probe], *, limit: int = MAX_COHORT) -> int:
    """Double the size while it fits into memory and each candidate gets cheaper.

    Args:
        probe: Measures so many candidates at once; raises `OutOfMemoryError` if they do not fit.
        limit: Largest answer, >= 1.

    Returns:
        A power of two, or `limit`.
    """
    best = 1
    cost = probe(1).train_s_per_example
    while best < limit:
        k = min(2 * best, limit)
        try:
            now = probe(k).train_s_per_example
        except OutOfMemoryError:
            return best
        if cost / now < _MIN_GAIN:
            return best
        best, cost = k, now
    return best
