import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autopeft.objectives import hypervolume, non_dominated_mask, reference_point

values = arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 4)), elements=st.integers(-3, 3).map(float))


@given(values)
def test_mask_equals_the_definition(y: np.ndarray) -> None:
    """Oracle: the definition, row by row."""
    expected = [not any((other >= row).all() and (other > row).any() for other in y) for row in y]
    assert non_dominated_mask(y).tolist() == expected


@given(values)
def test_hypervolume_equals_inclusion_exclusion(y: np.ndarray) -> None:
    """Oracle: inclusion-exclusion over all subsets of boxes."""
    reference = np.full(y.shape[1], -4.0)
    expected = 0.0
    for size in range(1, len(y) + 1):
        for subset in itertools.combinations(y, size):
            expected += (-1) ** (size + 1) * np.prod(np.min(subset, axis=0) - reference)
    assert hypervolume(y, reference) == pytest.approx(expected)


def test_rows_below_the_reference_count_nothing() -> None:
    assert hypervolume([[1.0, -1.0], [-1.0, 5.0]], [0.0, 0.0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [0.0, 0.0]) == 0.0


def test_unmeasured_values_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        non_dominated_mask([[1.0, np.nan]])


def test_every_row_exceeds_the_reference_point() -> None:
    y = np.array([[0.5, -100.0], [0.9, -1000.0], [0.5, -3000.0]])
    assert (y > reference_point(y)).all()
    assert (np.array([[0.0, 7.0]]) > reference_point([[0.0, 7.0]])).all()
