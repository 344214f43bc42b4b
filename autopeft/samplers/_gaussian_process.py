"""A Gaussian process with one length scale per dimension: fit, posterior and leave-one-out in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize
from torch import Tensor

from autopeft.samplers._priors import NOISE, LengthScalePrior, NoisePrior

Array = npt.NDArray[np.float64]

_SQRT_5 = math.sqrt(5)
#: Bounds of the noise variance, in units of the standardised outcome.
_NOISE_BOUNDS = (math.log(1e-5), math.log(2.0))
#: Signal variance: log-normal around one, the variance of the standardised outcome.
_LOG_SIGNAL_SPREAD = 0.5
_SIGNAL_BOUNDS = (math.log(0.05), math.log(20.0))
_SCALE_BOUNDS = (math.log(0.02), math.log(1e3))
#: Relative change of the log posterior at which its maximisation stops; predictions do not change any more.
_TOLERANCE = 1e-6
_MAX_ITERATIONS = 120
#: Added to the diagonal, relative to the signal variance.
_JITTER = 1e-8


class FitError(Exception):
    """The likelihood could not be maximised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Observations of a function, repeated ones merged.

    Args:
        x: Different points (n x d), float64.
        z: Mean observation at each (n,), about standardised.
        repeats: How many observations that mean stands for (n,), >= 1; its noise variance is divided by it.
        extra: Further noise variance of each mean (n,), >= 0: of extrapolated values, for example.
        within: Sum of squared differences of repeated observations from their means.
        n_within: Their degrees of freedom.
    """

    x: Tensor
    z: Tensor
    repeats: Tensor
    extra: Tensor
    within: float = 0.0
    n_within: int = 0

    @classmethod
    def merge(cls, x: Array, z: Array, extra: Array | None = None) -> Data:
        """Merge equal rows: their mean is observed, with less noise; their spread tells the noise itself.

        Args:
            x: Points (n x d); equal ones may occur.
            z: Observations (n,).
            extra: Further noise variance (n,); None for none.
        """
        further = np.zeros(len(z)) if extra is None else np.asarray(extra, dtype=np.float64)
        _, first, group = np.unique(x, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))  # groups in the order of their first observation
        group = order[np.asarray(group).reshape(-1)]
        counts = np.bincount(group).astype(np.float64)
        means = np.bincount(group, weights=z) / counts
        clean = further == 0
        within = float(np.square(z - means[group])[clean].sum())
        n_within = int(sum(max(0, int(n) - 1) for n in np.bincount(group[clean], minlength=len(counts))))
        return cls(
            x=torch.as_tensor(np.asarray(x)[np.sort(first)], dtype=torch.float64),
            z=torch.as_tensor(means),
            repeats=torch.as_tensor(counts),
            extra=torch.as_tensor(np.bincount(group, weights=further) / counts**2),
            within=within if n_within else 0.0,
            n_within=n_within,
        )

    def take(self, mask: Tensor) -> Data:
        """Some of the points; what repetitions of any point tell about the noise stays."""
        return replace(self, x=self.x[mask], z=self.z[mask], repeats=self.repeats[mask], extra=self.extra[mask])


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What is fitted.

    Args:
        log_scales: Logarithms of the length scales (d,).
        log_signal: Logarithm of the signal variance.
        log_noise: Logarithm of the noise variance of one observation.
    """

    log_scales: Tensor
    log_signal: float
    log_noise: float


def kernel(left: Tensor, right: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """Matern 5/2 correlations, and their derivative by the squared distance.

    k(r) = (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r);  dk / d(r^2) = -5/6 (1 + sqrt(5) r) exp(-sqrt(5) r).

    Args:
        left: Points (n x d).
        right: Points (m x d).
        log_scales: Logarithms of the length scales (d,).

    Returns:
        Correlations (n x m) in [0, 1], and derivatives (n x m).
    """
    inverse = torch.exp(-log_scales)
    a, b = left * inverse, right * inverse
    squared = (a.square().sum(-1, keepdim=True) + b.square().sum(-1) - 2 * a @ b.T).clamp_min(0.0)
    scaled = _SQRT_5 * squared.sqrt()
    decay = torch.exp(-scaled)
    return (1 + scaled + scaled.square() / 3) * decay, -5 / 6 * (1 + scaled) * decay


class GaussianProcess:
    """A fitted Gaussian process with a constant mean (generalised least squares).

    Args:
        data: What was observed.
        hyperparameters: See `fit`.
    """

    def __init__(self, data: Data, hyperparameters: Hyperparameters) -> None:
        self.data = data
        self.hyperparameters = hyperparameters
        self._signal = math.exp(hyperparameters.log_signal)
        correlation, _ = kernel(data.x, data.x, hyperparameters.log_scales)
        covariance = self._signal * correlation
        noise = math.exp(hyperparameters.log_noise) / data.repeats + data.extra + _JITTER * self._signal
        covariance.diagonal().add_(noise)
        self.noise = noise
        self._factor = _cholesky(covariance)
        ones = torch.ones_like(data.z).unsqueeze(-1)
        solved = torch.cholesky_solve(torch.cat([ones, data.z.unsqueeze(-1)], dim=-1), self._factor)
        self.mean = float(solved[:, 1].sum() / solved[:, 0].sum())
        self._weights = solved[:, 1] - self.mean * solved[:, 0]

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean (m,) and variance (m,) of the noise-free value at points (m x d)."""
        correlation, _ = kernel(x, self.data.x, self.hyperparameters.log_scales)
        cross = self._signal * correlation
        half = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        variance = self._signal - half.square().sum(0)
        return self.mean + cross @ self._weights, variance.clamp_min(1e-12)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """What each mean observation would have been predicted as without it, in closed form.

        mu_i = z_i - [K^-1 (z - m)]_i / [K^-1]_ii and var_i = 1 / [K^-1]_ii, noise included (Rasmussen and Williams,
        "Gaussian Processes for Machine Learning", equation 5.12); hyperparameters and mean are those of all data.

        Returns:
            Means (n,) and variances (n,) of the observation.
        """
        diagonal = torch.cholesky_inverse(self._factor).diagonal()
        return self.data.z - self._weights / diagonal, 1 / diagonal

    def with_data(self, x: Tensor, z: Tensor) -> GaussianProcess:
        """The same process given further observations, hyperparameters unchanged."""
        old = self.data
        data = Data(
            x=torch.cat([old.x, x]),
            z=torch.cat([old.z, z]),
            repeats=torch.cat([old.repeats, torch.ones(len(z), dtype=torch.float64)]),
            extra=torch.cat([old.extra, torch.zeros(len(z), dtype=torch.float64)]),
        )
        return GaussianProcess(data, self.hyperparameters)


def fit(data: Data, prior: LengthScalePrior, noise: NoisePrior = NOISE) -> GaussianProcess:
    """Maximise the log posterior of the hyperparameters by L-BFGS-B, with its gradient in closed form.

    Args:
        data: What was observed, two points or more.
        prior: Of the length scales.
        noise: Prior of the noise.

    Raises:
        FitError: If the covariance is not positive definite wherever it is tried.
    """
    n_dimensions = data.x.shape[1]
    start = np.concatenate([np.full(n_dimensions, prior.start(n_dimensions)), [0.0, noise.location]])
    bounds = [_SCALE_BOUNDS] * n_dimensions + [_SIGNAL_BOUNDS, _NOISE_BOUNDS]
    found = optimize.minimize(
        lambda theta: _negative_log_posterior(theta, data, prior, noise),
        np.clip(start, *np.array(bounds).T),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": _TOLERANCE, "maxiter": _MAX_ITERATIONS},
    )
    if not np.isfinite(found.fun):
        raise FitError(f"the likelihood of {len(data.z)} observations is nowhere finite.")
    theta = found.x
    return GaussianProcess(
        data,
        Hyperparameters(
            log_scales=torch.as_tensor(theta[:-2].copy()), log_signal=float(theta[-2]), log_noise=float(theta[-1])
        ),
    )


def _negative_log_posterior(
    theta: Array, data: Data, prior: LengthScalePrior, noise: NoisePrior
) -> tuple[float, Array]:
    """-log p(z, theta) up to a constant, and its gradient."""
    log_scales = torch.as_tensor(theta[:-2].copy())
    signal, log_noise = math.exp(theta[-2]), float(theta[-1])
    correlation, slope = kernel(data.x, data.x, log_scales)
    covariance = signal * correlation
    one = math.exp(log_noise)
    covariance.diagonal().add_(one / data.repeats + data.extra + _JITTER * signal)
    try:
        factor = _cholesky(covariance)
    except FitError:
        return math.inf, np.zeros_like(theta)
    inverse = torch.cholesky_inverse(factor)
    rows = inverse.sum(1)
    solved = inverse @ data.z
    weights = solved - float(solved.sum() / rows.sum()) * rows
    value = 0.5 * float(data.z @ weights) + float(factor.diagonal().log().sum())
    pull = 0.5 * (inverse - torch.outer(weights, weights))  # d value / d covariance
    weighted = pull * slope * signal
    inner = weighted.sum(1)
    # sum_ab W_ab (x_aj - x_bj)^2, for every j at once
    spread = 2 * ((inner.unsqueeze(-1) * data.x.square()).sum(0) - (data.x * (weighted @ data.x)).sum(0))
    gradient = np.empty_like(theta)
    log_prior, slope_prior = prior.log_density(log_scales)
    gradient[:-2] = (-2 * torch.exp(-2 * log_scales) * spread - slope_prior).numpy()
    gradient[-2] = float((pull * correlation).sum() + _JITTER * pull.diagonal().sum()) * signal
    gradient[-1] = float((pull.diagonal() / data.repeats).sum()) * one
    # Repeated observations tell the noise: n_within draws of variance `one`.
    value += 0.5 * (data.n_within * log_noise + data.within / one)
    gradient[-1] += 0.5 * (data.n_within - data.within / one)
    value -= float(log_prior)
    value += 0.5 * (theta[-2] / _LOG_SIGNAL_SPREAD) ** 2 + 0.5 * ((log_noise - noise.location) / noise.spread) ** 2
    gradient[-2] += theta[-2] / _LOG_SIGNAL_SPREAD**2
    gradient[-1] += (log_noise - noise.location) / noise.spread**2
    return value, gradient


def _cholesky(covariance: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(covariance)
    if int(info) != 0 or not bool(torch.isfinite(factor.diagonal()).all()):
        raise FitError("the covariance of the observations is not positive definite.")
    return factor
