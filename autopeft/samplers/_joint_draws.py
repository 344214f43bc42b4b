"""Values of one objective at several points at once, drawn from its surrogate, and predictions given these values."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autopeft.samplers._gaussian_process import kernel
from autopeft.samplers._surrogate import Surrogate

Array = npt.NDArray[np.float64]

#: Added to the diagonal of a joint covariance, relative to the signal variance, until it is positive definite.
_JITTERS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_MIN_VARIANCE = 1e-12


class JointDraws:
    """Draws of the noise-free values of one objective at points, as the surrogate is when this is made.

    With the posterior covariance C = L L^T of the points, a draw is f = mu + L z for standard normal z, and another
    point x with posterior covariances c to them has, given f, the mean mu(x) + (L^-1 c)^T z and the variance
    var(x) - |L^-1 c|^2 (Rasmussen and Williams, "Gaussian Processes for Machine Learning", equation A.6).

    Args:
        surrogate: Its `process` and `shift` are what is drawn from.
        x: Encoded points (n x d), different ones.
        normals: Standard normals (n x draws).
    """

    def __init__(self, surrogate: Surrogate, x: Array, normals: Array) -> None:
        process = surrogate.process
        self._process, self._shift = process, surrogate.shift
        self._spread = 1.0 if surrogate.shift is None else surrogate.shift.spread
        self._scales = process.hyperparameters.log_scales
        self._signal = math.exp(process.hyperparameters.log_signal)
        covariance = self._covariance(process.data.x, process.data.x)
        covariance.diagonal().add_(process.noise)
        self._data_factor = torch.linalg.cholesky(covariance)
        centred = (process.data.z - process.mean).unsqueeze(-1)
        self._whitened = torch.linalg.solve_triangular(self._data_factor, centred, upper=False)
        self._jitter = 0
        self._normals = torch.as_tensor(normals)
        self._place(torch.as_tensor(x, dtype=torch.float64))

    @property
    def values(self) -> Array:
        """What was drawn (n x draws), in the surrogate's units."""
        drawn = self._mean(self._x, self._half) + self._spread * (self._factor @ self._normals)
        return np.asarray(drawn.numpy())

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forget the other points, and what was drawn there."""
        drawn = (self._factor @ self._normals)[torch.as_tensor(mask)]
        self._place(self._x[torch.as_tensor(mask)])
        self._normals = torch.linalg.solve_triangular(self._factor, drawn, upper=False)

    def extend(self, x: Array, normals: Array) -> None:
        """Draw the values of further points (n x d), given those that were drawn before."""
        self._normals = torch.cat([self._normals, torch.as_tensor(normals)])
        self._place(torch.cat([self._x, torch.as_tensor(x, dtype=torch.float64)]))

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Means given each draw (draws x m) and standard deviations (m,), > 0, at points (m x d)."""
        points = torch.as_tensor(x, dtype=torch.float64)
        half = self._reduce(points)
        cross = self._covariance(self._x, points) - self._half.T @ half
        gain = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        variance = self._signal - half.square().sum(0) - gain.square().sum(0)
        mean = self._mean(points, half).T + self._spread * (self._normals.T @ gain)
        return mean.numpy(), (self._spread * variance.clamp_min(_MIN_VARIANCE).sqrt()).numpy()

    def _place(self, x: Tensor) -> None:
        """Factorise the joint covariance of points (n x d)."""
        self._x, self._half = x, self._reduce(x)
        covariance = self._covariance(x, x) - self._half.T @ self._half
        # Never less is added than before, or else what was drawn with more would be far out.
        for i in range(self._jitter, len(_JITTERS)):
            self._jitter = i
            padded = covariance + _JITTERS[i] * self._signal * torch.eye(len(x), dtype=torch.float64)
            factor, problem = torch.linalg.cholesky_ex(padded)
            if int(problem) == 0:
                break
        self._factor = factor

    def _covariance(self, left: Tensor, right: Tensor) -> Tensor:
        return self._signal * kernel(left, right, self._scales)[0]

    def _reduce(self, x: Tensor) -> Tensor:
        """L^-1 k(X, x) (n x m), L L^T the covariance of the observations."""
        return torch.linalg.solve_triangular(self._data_factor, self._covariance(self._process.data.x, x), upper=False)

    def _mean(self, x: Tensor, half: Tensor) -> Tensor:
        """Posterior means (m x 1)."""
        mean = self._spread * (self._process.mean + half.T @ self._whitened)
        return mean if self._shift is None else mean + torch.as_tensor(self._shift.mean(x.numpy())).unsqueeze(-1)
