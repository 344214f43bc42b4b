"""Oracles: invariants of the map, and finite differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autopeft.samplers._transform import OutcomeTransform

values = arrays.arrays(
    np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 6))
)


@given(values)
def test_it_keeps_the_order_and_can_be_undone(y: np.ndarray) -> None:
    transform = OutcomeTransform.of(y)
    z = transform(y)
    assert np.isfinite(z).all()
    order = np.argsort(y, kind="stable")
    assert (np.diff(z[order]) >= 0).all()
    assert transform.inverse(z) == pytest.approx(y, rel=1e-6, abs=1e-6 * (1 + np.abs(y).max()))


@given(values)
def test_it_standardises(y: np.ndarray) -> None:
    z = OutcomeTransform.of(y)(y)
    assert z.mean() == pytest.approx(0, abs=1e-6)
    if np.ptp(y) > 1e-9 * (1 + np.abs(y).max()):
        assert z.std(ddof=1) == pytest.approx(1, rel=1e-6)


def test_collapsed_trials_do_not_blur_the_good_ones() -> None:
    """Ten good values within 0.02, two at chance level: good ones still spread over a good part of the scale."""
    good = np.linspace(0.90, 0.92, 10)
    y = np.append(good, [0.5, 0.49])
    z = OutcomeTransform.of(y)(y)
    plain = (y - y.mean()) / y.std(ddof=1)
    assert np.ptp(z[:10]) > 5 * np.ptp(plain[:10])
    assert z[10] < z[:10].min()
    assert z[11] < z[10]


def test_differences_count_in_proportion_at_the_top() -> None:
    y = np.array([0.80, 0.82, 0.84, 0.86, 0.88, 0.90])
    assert np.ptp(np.diff(OutcomeTransform.of(y)(y)[2:])) == pytest.approx(0, abs=1e-12)


def test_most_trials_collapsed_to_one_value() -> None:
    """As CoLA's correlation does, to zero: the few that learned something set the scale."""
    y = np.array([0.0] * 8 + [0.1, 0.3, 0.4])
    z = OutcomeTransform.of(y)(y)
    assert np.diff(z[7:]).min() > 0.2


def test_constant_values_are_zero() -> None:
    assert OutcomeTransform.of(np.full(5, 0.7))(np.full(5, 0.7)).tolist() == [0.0] * 5


def test_the_slope_is_the_derivative() -> None:
    y = np.array([0.1, 0.5, 0.85, 0.9, 0.91, 0.92])
    transform = OutcomeTransform.of(y)
    difference = (transform(y + 1e-7) - transform(y - 1e-7)) / 2e-7
    assert transform.slope(y) == pytest.approx(difference, rel=1e-5)
