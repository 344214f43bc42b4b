"""Oracles: scipy's tau, coverage counted over draws, the ordinary prediction interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from autopeft.pruners import rank_correlation
from autopeft.pruners._calibration import Ceiling

pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=30)


@given(pairs)
def test_tau_is_scipys(values: list[tuple[int, int]]) -> None:
    x, y = np.array(values, dtype=float).T
    found = rank_correlation(x, y)
    assert found.n == len(values)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert (found.tau, found.low, found.high) == (None, None, None)
        return
    assert found.tau == pytest.approx(stats.kendalltau(x, y).statistic)
    if len(values) < 5:
        assert (found.low, found.high) == (None, None)
    else:
        assert found.low is not None
        assert found.high is not None
        assert -1 < found.low <= found.tau + 1e-9 or found.tau == -1
        assert found.low < found.high < 1


@pytest.mark.parametrize("n", [6, 12, 40])
def test_interval_covers_the_true_tau_nineteen_times_in_twenty(n: int) -> None:
    rng = np.random.default_rng(n)
    rho, hits, n_draws = 0.6, 0, 1500
    truth = 2 / math.pi * math.asin(rho)
    for _ in range(n_draws):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n).T
        found = rank_correlation(x, y)
        hits += found.low <= truth <= found.high  # type: ignore[operator]
    assert 0.93 <= hits / n_draws <= 0.985


def test_none_and_one_trial_have_no_correlation() -> None:
    assert rank_correlation([], []).tau is None
    assert rank_correlation([0.5], [0.6]).n == 1


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=20), st.floats(-1, 2), st.floats(-1, 2)
)
def test_ceiling_never_falls_where_the_rung_rises_and_is_above_the_prediction_interval(
    values: list[tuple[float, float]], a: float, b: float
) -> None:
    here, end = np.array(values).T
    ceiling = Ceiling.fit(here, end, risk=0.05)
    low, high = sorted((a, b))
    assert ceiling.at(low) <= ceiling.at(high) + 1e-9
    spread = float(((here - here.mean()) ** 2).sum())
    assume(spread > 1e-6)
    n = len(here)
    fit = stats.linregress(here, end)
    s = math.sqrt(float(((end - fit.intercept - fit.slope * here) ** 2).sum()) / (n - 2))
    interval = fit.intercept + fit.slope * a
    interval += stats.t.ppf(0.95, n - 2) * s * math.sqrt(1 + 1 / n + (a - here.mean()) ** 2 / spread)
    if fit.slope >= 0 and (a >= here.mean() or ceiling.slope_below > 0):
        assert ceiling.at(a) >= interval - 1e-6


@pytest.mark.parametrize("n", [6, 15, 60])
def test_so_many_trials_as_risked_end_above_their_ceiling_or_fewer(n: int) -> None:
    rng = np.random.default_rng(n)
    above, n_draws = 0, 4000
    for _ in range(n_draws):
        here = rng.normal(0.6, 0.05, n + 1)
        end = 0.2 + 0.8 * here + 0.02 * rng.standard_normal(n + 1)
        above += end[-1] > Ceiling.fit(here[:-1], end[:-1], risk=0.05).at(here[-1])
    assert 0.01 <= above / n_draws <= 0.06


def test_ceiling_of_trials_that_were_all_alike_at_the_rung() -> None:
    ceiling = Ceiling.fit(np.full(6, 0.5), np.linspace(0.6, 0.7, 6), risk=0.05)
    assert ceiling.at(0.1) == ceiling.at(0.9) > 0.7
