"""The general acquisition function: several uncertain objectives beside any number of exact ones, by sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autopeft.samplers._botorch import (
    FilterFeatures,
    GenericMCMultiOutputObjective,
    MaternKernel,
    ModelListGP,
    ScaleKernel,
    SingleTaskGP,
    SobolQMCNormalSampler,
    qLogNoisyExpectedHypervolumeImprovement,
    without_compiling,
)
from autopeft.samplers._gaussian_process import GaussianProcess
from autopeft.samplers._surrogate import Surrogate

Array = npt.NDArray[np.float64]

#: Quasi-random samples, and candidates scored at a time.
_N_SAMPLES = 64
_CHUNK = 256


class SampledImprovement:
    """`qLogNoisyExpectedHypervolumeImprovement` over several surrogates, exact values appended to the encoded point.

    Args:
        surrogates: Of the measured objectives (m1 of them).
        x: Encoded configurations that have been reached (n x d).
        exact: Their all-maximise exact values (n x m2).
        reference: All-maximise reference point (m1 + m2,), in the surrogates' units.
        seed: Of the quasi-random samples.
    """

    def __init__(self, surrogates: Sequence[Surrogate], x: Array, exact: Array, *, reference: Array, seed: int) -> None:
        self._n_features = x.shape[1]
        models = [to_botorch(item.process, n_more=exact.shape[1]) for item in surrogates]
        self._pending: list[Array] = []
        with without_compiling():
            self._acquisition = qLogNoisyExpectedHypervolumeImprovement(
                model=ModelListGP(*models),
                ref_point=reference.tolist(),
                X_baseline=torch.as_tensor(np.hstack([x, exact])),
                sampler=SobolQMCNormalSampler(torch.Size([_N_SAMPLES]), seed=seed),
                objective=GenericMCMultiOutputObjective(self._append_exact),
                prune_baseline=True,
            )

    def score(self, x: Array, exact: Array) -> Array:
        """Log expected improvement (n,) of encoded points (n x d) with their exact values (n x m2)."""
        points = torch.as_tensor(np.hstack([x, exact])).unsqueeze(-2)  # n x 1 x (d + m2)
        with torch.no_grad():
            return torch.cat([self._acquisition(chunk) for chunk in points.split(_CHUNK)]).numpy()

    def believe(self, x: Array, exact: Array) -> None:
        """Count points as on their way."""
        self._pending.append(np.hstack([x, exact]))
        self._acquisition.set_X_pending(torch.as_tensor(np.vstack(self._pending)))

    def _append_exact(self, samples: Tensor, X: Tensor | None = None) -> Tensor:  # noqa: N803 - BoTorch names it so
        """Measured samples (... x q x m1) beside the exact values of their points (... x q x m)."""
        if X is None:
            raise ValueError("exact values are read off the points, but none were given.")
        exact = X[..., self._n_features :]
        return torch.cat([samples, exact.expand(*samples.shape[:-1], exact.shape[-1])], dim=-1)


def to_botorch(process: GaussianProcess, *, n_more: int) -> SingleTaskGP:
    """The same process as a BoTorch model.

    Args:
        process: Fitted.
        n_more: Further columns of its inputs, which it does not look at.
    """
    data, found = process.data, process.hyperparameters
    n_features = data.x.shape[1]
    covariance = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=n_features))
    model = SingleTaskGP(
        torch.cat([data.x, data.x.new_zeros(len(data.x), n_more)], dim=-1),
        data.z.unsqueeze(-1),
        train_Yvar=process.noise.unsqueeze(-1),
        covar_module=covariance,
        outcome_transform=None,
        input_transform=FilterFeatures(torch.arange(n_features)) if n_more else None,
    )
    covariance.base_kernel.lengthscale = found.log_scales.exp()
    covariance.outputscale = float(np.exp(found.log_signal))
    model.mean_module.initialize(constant=process.mean)
    return model.double().eval()
