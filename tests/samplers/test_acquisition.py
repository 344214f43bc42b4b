"""Oracles: mpmath at 60 digits; numeric integration over the hypervolume of `autopeft.objectives`."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from autopeft.objectives import hypervolume
from autopeft.samplers._acquisition import (
    log_expected_hypervolume_improvement,
    log_expected_improvement,
    log_h,
)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("u", [8.0, 1.0, 0.0, -0.999, -1.0, -1.001, -5.0, -20.0, -40.0])
def test_log_h_equals_its_definition_in_high_precision(u: float) -> None:
    with mpmath.workdps(500):
        x = mpmath.mpf(u)
        expected = float(mpmath.log(mpmath.npdf(x) + x * mpmath.ncdf(x)))
    assert log_h(tensor(u)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("u", [-1e3, -9.9e5, -1.01e6, -1e9])
def test_log_h_equals_its_asymptotic_series_far_to_the_left(u: float) -> None:
    """h(u) = phi(u) (1 / u^2 - 3 / u^4 + 15 / u^6 - ...)."""
    with mpmath.workdps(60):
        x = mpmath.mpf(u)
        series = 1 - 3 / x**2 + 15 / x**4
        expected = float(-x * x / 2 - mpmath.log(2 * mpmath.pi) / 2 - 2 * mpmath.log(-x) + mpmath.log(series))
    assert log_h(tensor(u)).item() == pytest.approx(expected, rel=1e-12)


def test_log_h_increases_everywhere() -> None:
    u = torch.cat([-torch.logspace(9, -3, 400, dtype=torch.float64), torch.linspace(0, 40, 100, dtype=torch.float64)])
    assert (log_h(u).diff() > 0).all()


def test_log_expected_improvement_equals_quadrature() -> None:
    for mean, deviation, best in [(0.3, 0.1, 0.35), (0.5, 0.2, 0.1), (-1.0, 0.5, 0.0)]:
        density = stats.norm(mean, deviation).pdf
        expected, _ = integrate.quad(lambda y, d=density, b=best: (y - b) * d(y), best, best + 12 * deviation + 2)
        actual = log_expected_improvement(tensor(mean), tensor(deviation), best).exp().item()
        assert actual == pytest.approx(expected, rel=1e-7)


def brute_force(
    mean: float, deviation: float, cost: float, front: list[tuple[float, float]], reference: tuple[float, float]
) -> float:
    """Expected growth of the hypervolume, integrated over the uncertain value; kinks are given to the quadrature."""
    corner = (reference[0], -reference[1])
    before = hypervolume([(value, -c) for value, c in front], corner) if front else 0.0

    def growth(y: float) -> float:
        return hypervolume([*((value, -c) for value, c in front), (y, -cost)], corner) - before

    density = stats.norm(mean, deviation).pdf
    low, high = mean - 10 * deviation, mean + 10 * deviation
    kinks = sorted({low, high, *(v for v in [reference[0], *(v for v, _ in front)] if low < v < high)})
    pieces = [
        integrate.quad(lambda y: growth(y) * density(y), a, b, limit=200)[0] for a, b in itertools.pairwise(kinks)
    ]
    return float(sum(pieces))


def closed_form(
    mean: float, deviation: float, cost: float, front: list[tuple[float, float]], reference: tuple[float, float]
) -> float:
    log = log_expected_hypervolume_improvement(
        tensor(mean),
        tensor(deviation),
        tensor(cost),
        front_values=tensor(*(value for value, _ in front)),
        front_costs=tensor(*(c for _, c in front)),
        reference_value=reference[0],
        reference_cost=reference[1],
    )
    return math.exp(log.item())


members = st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(2.0, 6.0)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(mean=st.floats(0.0, 1.0), deviation=st.floats(0.02, 0.5), cost=st.floats(2.0, 6.0), front=members)
def test_closed_form_equals_brute_force(
    mean: float, deviation: float, cost: float, front: list[tuple[float, float]]
) -> None:
    """Any points as front: dominated, equally expensive, worse than the reference, beyond the reference cost."""
    reference = (0.2, 5.5)
    expected = brute_force(mean, deviation, cost, front, reference)
    assert closed_form(mean, deviation, cost, front, reference) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_closed_form_equals_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    front, reference = [(0.5, 3.0), (0.6, 4.0), (0.65, 5.0)], (0.4, 5.5)
    corner = (reference[0], -reference[1])
    before = hypervolume([(v, -c) for v, c in front], corner)
    draws = rng.normal(0.58, 0.05, 40_000)
    gains = [
        hypervolume([*((v, -c) for v, c in front), (y, -3.4)], corner) - before for y in draws[draws > reference[0]]
    ]
    assert closed_form(0.58, 0.05, 3.4, front, reference) == pytest.approx(sum(gains) / len(draws), rel=0.03)


def test_hopeless_candidates_are_still_ranked() -> None:
    """A hundred standard deviations below the front the improvement underflows; its logarithm does not."""
    log = log_expected_hypervolume_improvement(
        tensor(0.1, 0.2),
        tensor(0.001, 0.001),
        tensor(4.0, 4.0),
        front_values=tensor(0.9),
        front_costs=tensor(3.0),
        reference_value=0.8,
        reference_cost=5.0,
    )
    assert torch.isfinite(log).all()
    assert log[1] > log[0]
    assert log.exp().tolist() == [0.0, 0.0]


def test_nothing_is_gained_from_the_reference_cost_on() -> None:
    assert closed_form(0.9, 0.1, 5.0, [], (0.0, 5.0)) == 0.0
    assert closed_form(0.9, 0.1, 6.0, [(0.5, 3.0)], (0.0, 5.0)) == 0.0
