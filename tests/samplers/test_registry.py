import subprocess
import sys

import pytest

from autopeft.exceptions import UnknownNameError
from autopeft.samplers import SAMPLERS, make_sampler
from tests.samplers.problem import ACCURACY, FIDELITY, tiny_space


def test_the_samplers_that_are_promised() -> None:
    assert set(SAMPLERS) == {"random", "tpe", "nsga2", "bayesian"}


def test_a_misspelt_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown sampler 'bayes'\. Did you mean bayesian"):
        make_sampler("bayes", space=tiny_space(), objectives=(ACCURACY,), seed=0, fidelity=FIDELITY)


@pytest.mark.parametrize("forbidden", ["torch", "botorch", "optuna"])
def test_importing_the_package_is_light(forbidden: str) -> None:
    code = f"import sys, autopeft.samplers; sys.exit({forbidden!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_bayesian_sampler_raises_no_warning() -> None:
    code = "import autopeft.samplers._bayesian"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
