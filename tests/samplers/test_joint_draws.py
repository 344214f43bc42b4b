"""Oracles: one process given all at once, and moments of many draws."""

import numpy as np
import pytest
import torch

from autopeft.samplers._joint_draws import JointDraws
from autopeft.samplers._surrogate import GaussianProcesses, reproducible
from tests.samplers.botorch_oracle import to_botorch

RNG = np.random.default_rng(0)
X, NEW = RNG.random((15, 2)), RNG.random((6, 2))
Y = np.sin(5 * X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=15)


class Falling:
    """A shift: predictions become 3 - 2 x_0 + 0.5 times the process."""

    spread = 0.5

    def mean(self, x: np.ndarray) -> np.ndarray:
        return 3 - 2 * x[:, 0]


@pytest.fixture(params=[None, Falling()], ids=["plain", "shifted"])
def surrogate(request: pytest.FixtureRequest) -> GaussianProcesses:
    with reproducible(0):
        model = GaussianProcesses.fit(X, Y)
    model.shift = request.param
    return model


def joint(surrogate: GaussianProcesses, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BoTorch's mean (n,) and covariance (n x n)."""
    with torch.no_grad():
        posterior = to_botorch(surrogate.process, n_more=0, shift=surrogate.shift).posterior(torch.as_tensor(points))
        return posterior.mean.squeeze(-1).numpy(), posterior.distribution.covariance_matrix.numpy()


def test_draws_have_the_joint_moments(surrogate: GaussianProcesses) -> None:
    draws = JointDraws(surrogate, X[:5], np.random.default_rng(0).standard_normal((5, 100_000)))
    mean, covariance = joint(surrogate, X[:5])
    assert draws.values.mean(axis=1) == pytest.approx(mean, abs=0.01)
    assert np.cov(draws.values) == pytest.approx(covariance, abs=0.01)


def test_predictions_are_conditional_on_each_draw(surrogate: GaussianProcesses) -> None:
    """Gaussian conditioning written out with the covariance of everything."""
    draws = JointDraws(surrogate, X[:5], np.random.default_rng(0).standard_normal((5, 3)))
    mean, covariance = joint(surrogate, np.vstack([X[:5], NEW]))
    weights = np.linalg.solve(covariance[:5, :5], covariance[:5, 5:])
    found, deviation = draws.predict(NEW)
    assert found == pytest.approx((mean[5:, None] + weights.T @ (draws.values - mean[:5, None])).T, abs=1e-4)
    assert deviation == pytest.approx(np.sqrt(np.diag(covariance[5:, 5:] - weights.T @ covariance[:5, 5:])), abs=1e-4)


def test_what_is_kept_keeps_its_values_and_what_comes_has_the_joint_moments(surrogate: GaussianProcesses) -> None:
    rng = np.random.default_rng(0)
    draws = JointDraws(surrogate, X[:5], rng.standard_normal((5, 100_000)))
    before = draws.values
    mask = np.array([True, False, True, False, True])
    draws.keep(mask)
    assert draws.values == pytest.approx(before[mask], abs=1e-9)
    draws.extend(NEW[:2], rng.standard_normal((2, 100_000)))
    assert draws.values[:3] == pytest.approx(before[mask], abs=1e-9)
    mean, covariance = joint(surrogate, np.vstack([X[:5][mask], NEW[:2]]))
    assert draws.values.mean(axis=1) == pytest.approx(mean, abs=0.01)
    assert np.cov(draws.values) == pytest.approx(covariance, abs=0.01)


def test_points_that_are_nearly_the_same_can_be_drawn(surrogate: GaussianProcesses) -> None:
    points = np.vstack([X, X + 1e-9, X + 2e-9])
    draws = JointDraws(surrogate, points, np.random.default_rng(0).standard_normal((45, 8)))
    assert np.isfinite(draws.values).all()
    assert draws.values[:15] == pytest.approx(draws.values[30:], abs=0.02)
    mean, deviation = draws.predict(NEW)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()
