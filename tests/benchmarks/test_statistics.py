import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.replay.statistics import Estimate, at_time, compare, first_reaching


def test_intervals_are_students() -> None:
    """Oracle: scipy's interval of a t distribution."""
    values = np.random.default_rng(0).normal(2.0, 0.3, size=12)
    found = Estimate.of(values)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert math.isnan(Estimate.of([1.0]).half)


def test_comparisons_are_paired() -> None:
    """Oracle: scipy's paired tests; a common part, however large, does not matter."""
    rng = np.random.default_rng(1)
    common, ours, rival = rng.normal(0, 9, 20), rng.normal(0.4, 0.3, 20), rng.normal(0.0, 0.3, 20)
    found = compare(common + ours, common + rival)
    assert found.p_t == pytest.approx(stats.ttest_rel(ours, rival).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(ours - rival).pvalue)
    assert found.is_above()
    assert not found.is_below()
    assert compare(common + rival, common + ours).is_below()
    assert (found.wins, found.losses) == (int((ours > rival).sum()), int((ours < rival).sum()))


def test_equal_samplers_do_not_differ() -> None:
    found = compare([0.5] * 8, [0.5] * 8)
    assert (found.p_t, found.p_wilcoxon, found.wins, found.losses) == (1.0, 1.0, 0, 0)
    assert not found.is_above()
    assert not found.is_below()


def test_a_difference_that_is_always_the_same_is_no_chance() -> None:
    """Twelve equal signs have a probability of 2 / 2^12 by Wilcoxon's test; the t statistic is infinite."""
    found = compare([0.5] * 12, [0.25] * 12)
    assert found.p_t == 0.0
    assert found.p_wilcoxon == pytest.approx(2 / 2**12, rel=1.5)
    assert found.is_above()
    assert math.isnan(compare([0.5], [0.25]).difference.half)


def test_the_first_trial_that_reaches_a_value_is_found() -> None:
    curve = np.array([0.1, 0.4, 0.4, 0.9])
    assert [first_reaching(curve, target) for target in (0.0, 0.4, 0.41, 0.9, 0.91)] == [1, 2, 4, 4, None]


def test_curves_are_read_at_points_of_time() -> None:
    values = at_time(np.array([0.2, 0.5, 0.6]), [3.0, 3.0, 8.0], [0.0, 2.9, 3.0, 7.9, 8.0, 99.0])
    assert values.tolist() == [0.0, 0.0, 0.5, 0.5, 0.6, 0.6]
