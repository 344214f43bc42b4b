from __future__ import annotations

import pytest

from autopeft.exceptions import OutOfMemoryError
from autopeft.training import Probe
from autopeft.training._cohort_size import choose_cohort_size


def machine(*, fits: int, fills_at: int):
    """A device on which a step costs a constant until `fills_at` candidates fill it, and `fits` fit into memory."""

    def probe(k):
        if k > fits:
            raise OutOfMemoryError(f"{k} candidates do not fit.")
        return Probe(
            train_s_per_example=max(1.0, k / fills_at) / k, evaluation_s_per_example=1.0, peak_memory_bytes=None
        )

    return probe


@pytest.mark.parametrize(
    ("fits", "fills_at", "limit", "expected"),
    [(100, 1000, 64, 64), (100, 1, 64, 1), (100, 8, 64, 8), (5, 1000, 64, 4), (100, 1000, 24, 24), (1, 1, 1, 1)],
)
def test_size_grows_while_it_fits_and_pays(fits, fills_at, limit, expected):
    assert choose_cohort_size(machine(fits=fits, fills_at=fills_at), limit=limit) == expected
