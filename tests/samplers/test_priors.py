"""Oracle: the densities of scipy, and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from autopeft.samplers._priors import DimensionScaled, LengthScalePrior, SparseAxes

SCALES = np.array([0.1, 0.9, 3.0, 40.0])


def density(prior: LengthScalePrior, scales: np.ndarray) -> float:
    return float(prior.log_density(torch.as_tensor(np.log(scales)))[0])


@pytest.mark.parametrize("prior", [DimensionScaled(), SparseAxes(), SparseAxes(tau=1.0)])
def test_gradients_are_finite_differences(prior: LengthScalePrior) -> None:
    logs = np.log(SCALES)
    for i, step in enumerate(1e-6 * np.eye(4)):
        difference = (density(prior, np.exp(logs + step)) - density(prior, np.exp(logs - step))) / 2e-6
        assert float(prior.log_density(torch.as_tensor(logs))[1][i]) == pytest.approx(difference, abs=1e-6)


def test_length_scales_are_log_normal_and_grow_with_the_dimension() -> None:
    prior = DimensionScaled(location=math.sqrt(2), spread=math.sqrt(3))
    center = math.sqrt(2) + 0.5 * math.log(4)
    expected = stats.lognorm(s=math.sqrt(3), scale=math.exp(center)).logpdf(SCALES).sum()
    other = stats.lognorm(s=math.sqrt(3), scale=math.exp(center)).logpdf(2 * SCALES).sum()
    assert density(prior, 2 * SCALES) - density(prior, SCALES) == pytest.approx(other - expected)
    # the start is the mode
    start = prior.start(4)
    assert float(prior.log_density(torch.full((4,), start))[1].abs().max()) == pytest.approx(0, abs=1e-6)


def test_inverse_squared_length_scales_are_half_cauchy() -> None:
    prior = SparseAxes(tau=0.3)
    expected = stats.halfcauchy(scale=0.3).logpdf(1 / SCALES**2).sum()
    other = stats.halfcauchy(scale=0.3).logpdf(1 / (2 * SCALES) ** 2).sum()
    assert density(prior, 2 * SCALES) - density(prior, SCALES) == pytest.approx(other - expected)
