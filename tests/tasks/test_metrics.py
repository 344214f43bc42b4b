"""Oracles: scikit-learn and SciPy on random data, closed forms on small ones. Warnings are errors in this suite."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from autopeft.objectives import Direction
from autopeft.tasks import METRICS, compute_metrics
from autopeft.tasks._metrics import accuracy, directions, f1, macro_f1, matthews, pearson, rmse, spearman

SKLEARN = {
    "accuracy": sklearn.metrics.accuracy_score,
    "matthews": sklearn.metrics.matthews_corrcoef,
    "macro_f1": lambda y, p: sklearn.metrics.f1_score(y, p, average="macro", zero_division=0.0),
}
SCIPY = {
    "pearson": lambda y, p: scipy.stats.pearsonr(y, p).statistic,
    "spearman": lambda y, p: scipy.stats.spearmanr(y, p).statistic,
    "rmse": sklearn.metrics.root_mean_squared_error,
}


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("n_classes", [2, 3, 11])
@pytest.mark.parametrize("seed", range(5))
def test_class_metrics_equal_scikit_learn(name: str, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(n_classes, size=200)
    predictions = np.where(rng.random(200) < 0.4, targets, rng.integers(n_classes, size=200))
    assert METRICS[name].compute(predictions, targets) == pytest.approx(SKLEARN[name](targets, predictions), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_f1_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, predictions = rng.integers(2, size=(2, 50))
    assert f1(predictions, targets) == pytest.approx(sklearn.metrics.f1_score(targets, predictions), abs=1e-12)


@pytest.mark.parametrize("name", SCIPY)
@pytest.mark.parametrize("seed", range(5))
def test_value_metrics_equal_scipy_with_ties(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.round(rng.uniform(0, 5, size=100), 1)
    predictions = np.round(targets + rng.normal(size=100))
    assert METRICS[name].compute(predictions, targets) == pytest.approx(SCIPY[name](targets, predictions), abs=1e-12)


def test_closed_forms() -> None:
    targets, predictions = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert accuracy(predictions, targets) == 3 / 5
    assert f1(predictions, targets) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (2*1 - 1*1) / sqrt(3*3*2*2)
    assert matthews(predictions, targets) == pytest.approx(1 / 6)
    assert rmse(np.array([3.0, 0.0]), np.array([0.0, 4.0])) == pytest.approx((25 / 2) ** 0.5)
    assert spearman(np.array([1.0, 10.0, 100.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1.0)
    assert pearson(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)


def test_constant_predictions_have_a_defined_or_absent_score() -> None:
    targets, constant = np.array([0, 1, 2, 1]), np.zeros(4, dtype=np.int64)
    assert matthews(constant, targets) == 0.0
    assert macro_f1(constant, targets) == pytest.approx((0.4 + 0 + 0) / 3)
    assert f1(constant, np.array([0, 1, 0, 1])) == 0.0
    assert f1(constant, constant) is None
    values = np.array([0.5, 1.0, 2.0, 4.0])
    assert pearson(np.full(4, 0.3), values) is None
    assert spearman(np.full(4, 0.3), values) is None
    assert pearson(np.zeros(4), values) is None
    # Rounding noise on a constant is no correlation.
    assert pearson(0.1 + np.array([0.0, 1e-17, 2e-17, 0.0]), values) is None
    assert compute_metrics(["pearson", "rmse"], np.full(4, 1.0), values) == {"rmse": rmse(np.full(4, 1.0), values)}


def test_matthews_does_not_overflow() -> None:
    targets = np.repeat([0, 1], 2_000_000)
    assert matthews(targets, targets) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_scores_stay_in_their_range(pairs: list[tuple[int, int]]) -> None:
    predictions, targets = np.array(pairs).T
    for name in ("accuracy", "macro_f1"):
        value = METRICS[name].compute(predictions, targets)
        assert value is not None
        assert 0 <= value <= 1
    value = matthews(predictions, targets)
    assert value is not None
    assert -1 - 1e-12 <= value <= 1 + 1e-12


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=2, max_size=40),
    st.floats(0.1, 100),
    st.floats(-100, 100),
)
def test_correlations_ignore_scale_and_never_leave_their_range(
    pairs: list[tuple[float, float]], scale: float, shift: float
) -> None:
    predictions, targets = np.array(pairs).T
    value = pearson(predictions, targets)
    assert value is None or -1 <= value <= 1
    if value is not None and np.ptp(predictions) > 1 and np.ptp(targets) > 1:
        assert pearson(predictions * scale + shift, targets) == pytest.approx(value, abs=1e-4)


def test_directions_keep_the_order() -> None:
    assert list(directions(("rmse", "pearson")).items()) == [
        ("rmse", Direction.MINIMIZE),
        ("pearson", Direction.MAXIMIZE),
    ]
