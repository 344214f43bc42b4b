import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from autopeft.samplers._saas import SaasFit
from autopeft.samplers._surrogate import SurrogateError, reproducible


def test_one_observation_is_too_few() -> None:
    with pytest.raises(SurrogateError, match="two observations"):
        SaasFit(0)(np.zeros((1, 3)), np.zeros(1), np.zeros(1))


def test_the_registry_does_not_import_jax() -> None:
    code = "import sys, autopeft.samplers; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_it_finds_the_two_axes_that_matter() -> None:
    """Oracle: the function that was sampled. Ten dimensions, two of them active."""
    pytest.importorskip("numpyro")
    rng = np.random.default_rng(0)
    x, new = rng.random((25, 10)), rng.random((100, 10))

    def true(points: np.ndarray) -> np.ndarray:
        return np.sin(4 * points[:, 3]) + points[:, 7]

    with reproducible(0):
        surrogate = SaasFit(0)(x, true(x) + 0.02 * rng.normal(size=25), np.zeros(25))
        mean, deviation = surrogate.predict(new)
    assert len(surrogate.processes) == 8
    assert stats.spearmanr(mean, true(new)).statistic > 0.9
    assert (deviation > 0).all()
    for process in surrogate.processes:
        scales = process.hyperparameters.log_scales.numpy()
        assert set(np.argsort(scales)[:2]) == {3, 7}
