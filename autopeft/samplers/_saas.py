"""The fully Bayesian surrogate: hyperparameters by the No-U-Turn sampler instead of by maximisation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from autopeft.samplers._botorch import fully_bayesian
from autopeft.samplers._gaussian_process import Data, FitError, GaussianProcess, Hyperparameters
from autopeft.samplers._surrogate import PRIORS, GaussianProcesses, SurrogateError, hold_out
from autopeft.samplers._transform import OutcomeTransform

Array = npt.NDArray[np.float64]

#: Steps of adaptation, samples after them, and every how many of these is kept.
_WARMUP = 256
_SAMPLES = 128
_THINNING = 16
_MAX_TREE_DEPTH = 6


class SaasFit:
    """Fits the sparse axis-aligned subspace model of Eriksson and Jankowiak (arXiv 2103.00349) by NUTS.

    The kept samples of the hyperparameters become one Gaussian process each; predictions are their mixture. Seconds per
    fit, where the default takes a fraction of one. Held-out quality is that of the default's processes: it judges the
    data, and refitting this model for every fold would multiply its time.

    Args:
        seed: Of the chain.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, x: Array, y: Array, noise_sd: Array) -> GaussianProcesses:
        """See `autopeft.samplers._goal.FitSurrogate`.

        Raises:
            SurrogateError: If there are fewer than two observations or the chain fails.
        """
        if len(y) < 2:
            raise SurrogateError(f"a surrogate needs two observations or more, but got {len(y)}.")
        transform = OutcomeTransform.of(y)
        z = transform(y)
        data = Data.merge(x, z, np.square(noise_sd * transform.slope(y)))
        try:
            processes = [GaussianProcess(data, found) for found in _sample(x, z, seed=self._seed)]
        except (FitError, RuntimeError, ValueError) as error:
            raise SurrogateError(f"NUTS could not be run on {len(y)} observations: {error}") from error
        return GaussianProcesses(processes, transform, held_out=hold_out(data, PRIORS))


def _sample(x: Array, z: Array, *, seed: int) -> list[Hyperparameters]:
    """Samples of the hyperparameters given all single observations."""
    model_class, run_nuts = fully_bayesian()
    model = model_class(torch.as_tensor(x), torch.as_tensor(z).unsqueeze(-1))
    run_nuts(
        model,
        max_tree_depth=_MAX_TREE_DEPTH,
        warmup_steps=_WARMUP,
        num_samples=_SAMPLES,
        thinning=_THINNING,
        disable_progbar=True,
        seed=seed,
    )
    covariance = model.covar_module
    scales = covariance.base_kernel.lengthscale.detach().double().squeeze(-2)  # samples x d
    signals = covariance.outputscale.detach().double()
    noises = model.likelihood.noise.detach().double().reshape(len(scales), -1)[:, 0]
    return [
        Hyperparameters(log_scales=scale.log(), log_signal=float(signal.log()), log_noise=float(noise.log()))
        for scale, signal, noise in zip(scales, signals, noises, strict=True)
    ]
