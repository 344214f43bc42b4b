"""Oracles: BoTorch and GPyTorch with the same hyperparameters, finite differences, and leaving one out for real."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.samplers._gaussian_process import (
    Data,
    FitError,
    GaussianProcess,
    Hyperparameters,
    _negative_log_posterior,
    fit,
    kernel,
)
from autopeft.samplers._priors import NOISE, DimensionScaled, NoisePrior, SparseAxes
from tests.samplers.botorch_oracle import MaternKernel, to_botorch

PRIORS = (DimensionScaled(), SparseAxes())


def sample(n: int = 25, d: int = 4, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    z = np.sin(4 * x[:, 0]) + 0.5 * x[:, 1] + 0.05 * rng.normal(size=n)
    return x, (z - z.mean()) / z.std()


def hyperparameters(d: int = 4) -> Hyperparameters:
    return Hyperparameters(log_scales=torch.linspace(-1, 1, d, dtype=torch.float64), log_signal=0.3, log_noise=-3.0)


def test_the_kernel_is_matern_and_its_slope_its_derivative() -> None:
    x, _ = sample()
    logs = hyperparameters().log_scales
    theirs = MaternKernel(nu=2.5, ard_num_dims=4).double()
    theirs.lengthscale = logs.exp()
    points = torch.as_tensor(x)
    values, slope = kernel(points, points[:7], logs)
    assert values.numpy() == pytest.approx(theirs(points, points[:7]).to_dense().detach().numpy(), abs=1e-9)
    # Scaling all lengths by exp(-h) scales squared distances by exp(2 h).
    squared = (((points[:, None] - points[None, :7]) / logs.exp()) ** 2).sum(-1)
    up, down = (kernel(points, points[:7], logs - h)[0] for h in (1e-6, -1e-6))
    assert ((up - down) / 2e-6).numpy() == pytest.approx((2 * squared * slope).numpy(), abs=1e-6)


@pytest.mark.parametrize("prior", PRIORS)
def test_the_gradient_is_a_finite_difference(prior) -> None:
    x, z = sample()
    x[5] = x[4]
    data = Data.merge(x, z, extra=np.where(np.arange(25) == 3, 0.5, 0.0))
    theta = np.concatenate([np.random.default_rng(1).normal(size=4) * 0.5, [0.2, -3.0]])
    gradient = _negative_log_posterior(theta, data, prior, NOISE)[1]
    for i, step in enumerate(1e-5 * np.eye(6)):
        ends = [_negative_log_posterior(theta + sign * step, data, prior, NOISE)[0] for sign in (1, -1)]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-5)


def test_predictions_are_botorchs() -> None:
    x, z = sample()
    process = GaussianProcess(Data.merge(x, z, extra=np.linspace(0, 0.3, 25)), hyperparameters())
    new = torch.as_tensor(sample(9, seed=1)[0])
    theirs = to_botorch(process, n_more=0).posterior(new)
    mean, variance = process.predict(new)
    assert mean.numpy() == pytest.approx(theirs.mean.squeeze(-1).detach().numpy(), abs=1e-6)
    assert variance.numpy() == pytest.approx(theirs.variance.squeeze(-1).detach().numpy(), abs=1e-6)


def test_repeated_observations_are_the_same_as_separate_ones() -> None:
    """Oracle: the ordinary process on all rows, equal points included."""
    x, z = sample(20)
    x[10:15] = x[:5]
    merged = GaussianProcess(Data.merge(x, z), hyperparameters())
    separate = GaussianProcess(
        Data(
            x=torch.as_tensor(x), z=torch.as_tensor(z), repeats=torch.ones(20).double(), extra=torch.zeros(20).double()
        ),
        hyperparameters(),
    )
    new = torch.as_tensor(sample(9, seed=1)[0])
    assert len(merged.data.z) == 15
    for ours, theirs in zip(merged.predict(new), separate.predict(new), strict=True):
        assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-6)


def test_merging_keeps_the_likelihood_of_the_noise() -> None:
    """Up to a constant, the posterior of merged repetitions is that of all rows: differences over noises agree."""
    x, z = sample(12)
    x[6:] = x[:6]
    rows = Data(
        x=torch.as_tensor(x), z=torch.as_tensor(z), repeats=torch.ones(12).double(), extra=torch.zeros(12).double()
    )
    at = [np.array([0.1, -0.3, 0.5, 0.0, 0.2, noise]) for noise in (-5.0, -3.0, -1.0)]
    merged, separate = (
        np.array([_negative_log_posterior(theta, data, PRIORS[0], NOISE)[0] for theta in at])
        for data in (Data.merge(x, z), rows)
    )
    assert np.diff(merged) == pytest.approx(np.diff(separate), rel=1e-4)


def test_repetitions_tell_the_noise() -> None:
    x, _ = sample(30)
    noise = 0.4
    rng = np.random.default_rng(3)
    again = np.tile(x, (4, 1))
    z = np.tile(np.sin(4 * x[:, 0]), 4) + noise * rng.normal(size=120)
    found = fit(Data.merge(again, z), PRIORS[0]).hyperparameters
    assert math.exp(found.log_noise) == pytest.approx(noise**2, rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_data_tell_how_much_is_noise_whatever_the_prior_believes(share: float) -> None:
    """Oracle: the variance of the noise that was added to a smooth function, seen once at each of 80 points."""
    rng = np.random.default_rng(5)
    x = rng.random((80, 2))
    smooth = np.sin(4 * x[:, 0]) / np.std(np.sin(4 * x[:, 0]))
    z = math.sqrt(1 - share) * smooth + math.sqrt(share) * rng.normal(size=80)
    for noise in (NOISE, NoisePrior(location=-4.0)):
        found = math.exp(fit(Data.merge(x, z), PRIORS[0], noise).hyperparameters.log_noise)
        assert found == pytest.approx(share, rel=0.35, abs=0.01)


def test_leave_one_out_is_leaving_one_out() -> None:
    x, z = sample(15)
    process = GaussianProcess(Data.merge(x, z), hyperparameters())
    means, variances = process.leave_one_out()
    for i in range(15):
        rest = np.arange(15) != i
        other = GaussianProcess(Data.merge(x[rest], z[rest]), hyperparameters())
        other.mean = process.mean  # the closed form keeps the mean of all data
        solved = torch.cholesky_solve((other.data.z - process.mean).unsqueeze(-1), other._factor).squeeze(-1)
        other._weights = solved
        mean, variance = other.predict(torch.as_tensor(x[i : i + 1]))
        assert float(means[i]) == pytest.approx(float(mean), abs=1e-5)
        assert float(variances[i]) == pytest.approx(float(variance) + math.exp(-3.0), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_more_data_never_makes_it_less_certain(seed: int) -> None:
    x, z = sample(12, seed=seed)
    process = GaussianProcess(Data.merge(x, z), hyperparameters())
    new = torch.as_tensor(sample(5, seed=seed + 1)[0])
    more = process.with_data(new[:2], process.predict(new[:2])[0])
    assert (more.predict(new)[1] <= process.predict(new)[1] + 1e-8).all()


@pytest.mark.parametrize("prior", PRIORS)
def test_the_fit_finds_what_matters(prior) -> None:
    x, z = sample(60, 6)
    scales = fit(Data.merge(x, z), prior).hyperparameters.log_scales.exp()
    assert scales[0] < scales[1] < scales[2:].min()


def test_sparse_axes_switch_irrelevant_dimensions_off() -> None:
    x, z = sample(60, 6)
    dense, sparse = (fit(Data.merge(x, z), prior).hyperparameters.log_scales.exp() for prior in PRIORS)
    assert sparse[2:].min() > 5 * sparse[1]
    assert sparse[2:].min() > 2 * dense[2:].min()


def test_a_covariance_that_is_not_one_is_an_error() -> None:
    x, z = sample(5)
    with pytest.raises(FitError, match="not positive definite"):
        GaussianProcess(Data.merge(x, z, extra=np.full(5, -10.0)), hyperparameters())
    with pytest.raises(FitError, match="nowhere finite"):
        fit(Data.merge(x, np.full(5, np.nan)), PRIORS[0])
