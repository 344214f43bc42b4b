"""The only place that imports BoTorch and what it stands on."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():
    # linear_operator compiles a few functions with torch.jit.script when it is imported.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=DeprecationWarning)
    from botorch.exceptions import BotorchWarning
    from linear_operator.utils.warnings import NumericalWarning

__all__ = ["BotorchWarning", "NumericalWarning", "fully_bayesian"]


def fully_bayesian() -> tuple[Any, Any]:
    """The class of the fully Bayesian model, and the function that fits it; imports JAX."""
    from botorch.fit import fit_fully_bayesian_model_nuts
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

    return SaasFullyBayesianSingleTaskGP, fit_fully_bayesian_model_nuts
