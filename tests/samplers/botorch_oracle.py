"""Our surrogates as BoTorch models, and its acquisition function over them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autopeft.samplers._gaussian_process import GaussianProcess
from autopeft.samplers._surrogate import Shift, Surrogate

with warnings.catch_warnings():
    # linear_operator compiles a few functions with torch.jit.script when it is imported.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=DeprecationWarning)
    from botorch.acquisition.multi_objective import logei
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms.input import FilterFeatures
    from botorch.sampling import SobolQMCNormalSampler
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.means import Mean


def log_improvement(
    surrogates: Sequence[Surrogate],
    reached: tuple[np.ndarray, np.ndarray],
    new: tuple[np.ndarray, np.ndarray],
    *,
    reference: np.ndarray,
    n_samples: int,
    pending: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """qLogNoisyExpectedHypervolumeImprovement (n,); points are pairs of encodings and exact values."""
    n_features = reached[0].shape[1]

    def append_exact(samples: Tensor, X: Tensor) -> Tensor:
        exact = X[..., n_features:]
        return torch.cat([samples, exact.expand(*samples.shape[:-1], exact.shape[-1])], dim=-1)

    attempted, logei._load_attempted = logei._load_attempted, True  # or it would compile an extension for minutes
    try:
        acquisition = logei.qLogNoisyExpectedHypervolumeImprovement(
            model=ModelListGP(
                *(to_botorch(item.process, n_more=reached[1].shape[1], shift=item.shift) for item in surrogates)
            ),
            ref_point=reference.tolist(),
            X_baseline=torch.as_tensor(np.hstack(reached)),
            X_pending=None if pending is None else torch.as_tensor(np.hstack(pending)),
            sampler=SobolQMCNormalSampler(torch.Size([n_samples]), seed=0),
            objective=GenericMCMultiOutputObjective(append_exact),
            prune_baseline=True,
        )
        with torch.no_grad():
            return acquisition(torch.as_tensor(np.hstack(new)).unsqueeze(-2)).numpy()
    finally:
        logei._load_attempted = attempted


class _ShiftedMean(Mean):
    """The prior mean of a shifted process.

    Args:
        shift: See `Shift`.
        constant: The process's own mean.
    """

    def __init__(self, shift: Shift, constant: float) -> None:
        super().__init__()
        self._shift = shift
        self._constant = constant

    def forward(self, x: Tensor) -> Tensor:
        found = self._shift.mean(x.detach().reshape(-1, x.shape[-1]).numpy())
        return torch.as_tensor(found).reshape(x.shape[:-1]) + self._shift.spread * self._constant


def to_botorch(process: GaussianProcess, *, n_more: int, shift: Shift | None = None) -> SingleTaskGP:
    """The same process as a BoTorch model.

    Args:
        process: Fitted.
        n_more: Further columns of its inputs, which it does not look at.
        shift: What the model adds to the process, and by what it multiplies it; None for nothing.
    """
    data, found = process.data, process.hyperparameters
    spread = 1.0 if shift is None else shift.spread
    observed = spread * data.z if shift is None else spread * data.z + torch.as_tensor(shift.mean(data.x.numpy()))
    n_features = data.x.shape[1]
    covariance = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=n_features))
    model = SingleTaskGP(
        torch.cat([data.x, data.x.new_zeros(len(data.x), n_more)], dim=-1),
        observed.unsqueeze(-1),
        train_Yvar=spread**2 * process.noise.unsqueeze(-1),
        covar_module=covariance,
        outcome_transform=None,
        input_transform=FilterFeatures(torch.arange(n_features)) if n_more else None,
    )
    covariance.base_kernel.lengthscale = found.log_scales.exp()
    covariance.outputscale = spread**2 * float(np.exp(found.log_signal))
    if shift is None:
        model.mean_module.initialize(constant=process.mean)
    else:
        model.mean_module = _ShiftedMean(shift, process.mean)
    return model.double().eval()
