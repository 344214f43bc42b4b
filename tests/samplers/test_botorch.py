"""What is taken from BoTorch is imported in one place, quietly, and without JAX until it is needed."""

from __future__ import annotations

import subprocess
import sys

from autopeft.samplers._botorch import BotorchWarning, NumericalWarning, fully_bayesian


def test_importing_warns_of_nothing_and_leaves_jax_alone() -> None:
    code = "import sys, autopeft.samplers._botorch; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning", "-c", code], check=True)


def test_the_warnings_are_those_that_its_models_give() -> None:
    assert issubclass(BotorchWarning, Warning)
    assert issubclass(NumericalWarning, Warning)


def test_the_model_fits_what_the_function_fits() -> None:
    model, fit = fully_bayesian()
    assert hasattr(model, "load_mcmc_samples")
    assert callable(fit)
