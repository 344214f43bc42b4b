import numpy as np
import pytest

from autopeft.orchestrate import difference_interval, score_interval
from autopeft.orchestrate._statistics import seed_interval


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float | None:
    return float((predictions == targets).mean())


def test_mean_and_width_of_one_seed_equal_the_binomial_standard_error() -> None:
    """Oracle: the closed form sqrt(p (1 - p) / n) for accuracy."""
    targets = np.zeros(1000)
    predictions = np.zeros((1, 1000))
    predictions[0, :200] = 1
    interval = score_interval(predictions, targets, accuracy)
    assert interval is not None
    assert interval.mean == pytest.approx(0.8)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.962 * np.sqrt(0.8 * 0.2 / 1000), rel=0.15)


def test_equal_predictions_differ_by_nothing() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 2, 300).astype(float), rng.integers(0, 2, (1, 300)).astype(float)
    interval = difference_interval(predictions, predictions, targets, accuracy)
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert not interval.excludes_zero


def test_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    """Oracle: simulation with a known difference; seeds and examples both vary."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        targets = np.zeros(200)
        skill = rng.normal(0, 0.03, size=(2, 3))  # two methods x three seeds
        base = np.array([0.8, 0.7])
        wrong = [[rng.random(200) > base[m] + skill[m, s] for s in range(3)] for m in range(2)]
        sides = np.array(wrong, dtype=float)
        interval = difference_interval(sides[0], sides[1], targets, accuracy)
        assert interval is not None
        hits += interval.low <= 0.1 <= interval.high
    assert 52 <= hits <= 60


def test_a_metric_undefined_for_a_seed_gives_no_interval() -> None:
    assert score_interval(np.zeros((2, 5)), np.zeros(5), lambda p, t: None) is None


def test_interval_over_seeds_is_students() -> None:
    """Oracle: SciPy's interval of a t distribution."""
    from scipy import stats

    values = [0.30, 0.35, 0.31]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert seed_interval(values) == pytest.approx((np.mean(values), interval.low, interval.high))
    assert seed_interval([0.3]) is None
    assert seed_interval([]) is None
    assert seed_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
