"""Gaussian processes for the measured objectives."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autopeft.samplers._botorch import (
    BotorchWarning,
    ExactMarginalLogLikelihood,
    ModelFittingError,
    NumericalWarning,
    SingleTaskGP,
    fit_gpytorch_mll,
)

Array = npt.NDArray[np.float64]


#: Relative change of the log posterior at which its maximisation stops: predictions do not change any more, and the
#: library's default takes ten times as long.
_TOLERANCE = 1e-6


class SurrogateError(Exception):
    """No Gaussian process could be fitted to the observations."""


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run torch on one thread, from a seed, without a trace outside and without the libraries' routine warnings.

    The matrices are tiny, so that more threads only fight over the cores of a running trial; and one thread gives the
    same sums in the same order everywhere.
    """
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Jitter added to a covariance and restarts of the fit are routine; a fit that fails raises.
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)


class Surrogate:
    """One measured objective as a Gaussian process over encoded configurations.

    BoTorch's `SingleTaskGP` in float64: a radial kernel with one length scale per dimension under a prior that grows
    with the square root of the dimension (Hvarfner et al., "Vanilla Bayesian optimization performs great in high
    dimensions", arXiv 2402.02229), homoscedastic noise, hyperparameters by maximum a posteriori. The outcome is
    standardised here.

    Args:
        x: Encoded configurations (n x d), in [0, 1].
        y: Values (n,), larger is better.

    Raises:
        SurrogateError: If there are fewer than two observations or the fit fails.
    """

    def __init__(self, x: Array, y: Array) -> None:
        if len(y) < 2:
            raise SurrogateError(f"a surrogate needs two observations or more, but got {len(y)}.")
        spread = float(y.std(ddof=1))
        self._mean, self._scale = float(y.mean()), spread if spread > 0 else 1.0
        self._x = torch.as_tensor(x, dtype=torch.float64)
        self._z = (torch.as_tensor(y, dtype=torch.float64) - self._mean) / self._scale
        with warnings.catch_warnings():
            # Equal values cannot be standardised to unit variance: BoTorch warns, and the prior takes over.
            warnings.simplefilter("ignore", BotorchWarning)
            self.model = SingleTaskGP(self._x, self._z.unsqueeze(-1), outcome_transform=None)
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(self.model.likelihood, self.model),
                optimizer_kwargs={"options": {"ftol": _TOLERANCE}},
            )
        except (ModelFittingError, RuntimeError) as error:  # linear algebra fails with kinds of RuntimeError
            raise SurrogateError(
                f"the Gaussian process could not be fitted to {len(y)} observations: {error}"
            ) from error
        self.model.eval()

    def believe(self, x: Array) -> None:
        """Take points as observed at their predicted means: uncertainty near them shrinks, the mean stays.

        Args:
            x: Encoded configurations (n x d).
        """
        if not len(x):
            return
        new = torch.as_tensor(x, dtype=torch.float64)
        means, _ = self.predict_standardized(new)
        self._x, self._z = torch.cat([self._x, new]), torch.cat([self._z, means])
        self.model.set_train_data(self._x, self._z, strict=False)

    def predict(self, x: Array) -> tuple[Tensor, Tensor]:
        """Posterior of the noise-free value.

        Args:
            x: Encoded configurations (n x d).

        Returns:
            Means (n,) and standard deviations (n,) in the units of y.
        """
        mean, deviation = self.predict_standardized(x)
        return mean * self._scale + self._mean, deviation * self._scale

    def predict_standardized(self, x: Array | Tensor) -> tuple[Tensor, Tensor]:
        """Posterior of the noise-free value in units of the standardised outcome, as `predict` otherwise."""
        x = torch.as_tensor(x, dtype=torch.float64)
        with torch.no_grad():
            posterior = self.model.posterior(x)
            return posterior.mean.squeeze(-1), posterior.variance.squeeze(-1).clamp_min(1e-12).sqrt()
