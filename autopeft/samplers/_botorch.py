"""The only place that imports BoTorch and GPyTorch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

with warnings.catch_warnings():
    # linear_operator compiles a few functions with torch.jit.script when it is imported.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=DeprecationWarning)
    from botorch.acquisition.multi_objective import logei
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
    from botorch.exceptions import BotorchWarning
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms.input import FilterFeatures
    from botorch.sampling import SobolQMCNormalSampler
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.means import Mean
    from linear_operator.utils.warnings import NumericalWarning

__all__ = [
    "BotorchWarning",
    "FilterFeatures",
    "GenericMCMultiOutputObjective",
    "MaternKernel",
    "Mean",
    "ModelListGP",
    "NumericalWarning",
    "ScaleKernel",
    "SingleTaskGP",
    "SobolQMCNormalSampler",
    "fully_bayesian",
    "qLogNoisyExpectedHypervolumeImprovement",
    "without_compiling",
]


@contextlib.contextmanager
def without_compiling() -> Iterator[None]:
    """Build acquisition functions without BoTorch's C++ kernel.

    The first qLogNEHVI of a process otherwise compiles an extension into the user's home folder: a minute or two where
    there is a compiler, a warning where there is none. A few hundred candidates do not pay for that.
    """
    attempted = logei._load_attempted
    logei._load_attempted = True
    try:
        yield
    finally:
        logei._load_attempted = attempted


def fully_bayesian() -> tuple[Any, Any]:
    """The class of the fully Bayesian model, and the function that fits it; imports JAX."""
    from botorch.fit import fit_fully_bayesian_model_nuts
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

    return SaasFullyBayesianSingleTaskGP, fit_fully_bayesian_model_nuts
