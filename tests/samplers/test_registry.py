import subprocess
import sys

import pytest

from autopeft.exceptions import MachineError, UnknownNameError, UsageError
from autopeft.objectives import Direction, Objective
from autopeft.samplers import SAMPLERS, _registry, make_sampler, require_sampler
from tests.samplers.problem import ACCURACY, FIDELITY, tiny_space


def test_the_samplers_that_are_promised() -> None:
    assert set(SAMPLERS) == {"random", "tpe", "nsga2", "bayesian", "saas"}


def test_a_misspelt_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown sampler 'bayes'\. Did you mean bayesian"):
        make_sampler("bayes", space=tiny_space(), objectives=(ACCURACY,), seed=0, fidelity=FIDELITY)


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"needs jax and numpyro; install them: pip install 'autopeft\[saas\]'"):
        require_sampler("saas")
    with pytest.raises(MachineError, match="Sampler bayesian needs neither"):
        make_sampler("saas", space=tiny_space(), objectives=(ACCURACY,), seed=0, fidelity=FIDELITY)
    require_sampler("bayesian")


@pytest.mark.parametrize("n", [0, 5])
def test_one_to_four_objectives(n: int) -> None:
    objectives = tuple(Objective(name=f"reward_{i}", direction=Direction.MAXIMIZE) for i in range(n))
    names = ", ".join(item.name for item in objectives) or "none"
    with pytest.raises(UsageError, match=f"1 to 4 objectives, but got {n} \\({names}\\); bound some of them"):
        make_sampler("random", space=tiny_space(), objectives=objectives, seed=0, fidelity=FIDELITY)


@pytest.mark.parametrize("forbidden", ["torch", "botorch", "optuna"])
def test_importing_the_package_is_light(forbidden: str) -> None:
    code = f"import sys, autopeft.samplers; sys.exit({forbidden!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_bayesian_sampler_raises_no_warning() -> None:
    code = "import autopeft.samplers._bayesian"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
