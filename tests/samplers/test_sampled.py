"""Oracle: the hypervolume that is gained by certain values."""

import numpy as np
import pytest

from autopeft.objectives import hypervolume
from autopeft.samplers._sampled import SampledImprovement
from autopeft.samplers._surrogate import GaussianProcesses, reproducible


def test_where_nothing_is_uncertain_it_is_the_gain_in_hypervolume() -> None:
    """Two smooth functions seen without noise at 40 points beside one exact value; candidates are seen points."""
    rng = np.random.default_rng(0)
    x = rng.random((40, 2))
    y = np.column_stack([np.sin(3 * x[:, 0]), np.cos(3 * x[:, 1])])
    exact = rng.random((40, 1))
    with reproducible(0):
        models = [GaussianProcesses.fit(x, column) for column in y.T]
        z = np.column_stack([model.transform(column) for model, column in zip(models, y.T, strict=True)])
        values = np.hstack([z, exact])
        reference = values.min(axis=0) - 0.5
        sampled = SampledImprovement(models, x[:5], exact[:5], reference=reference, seed=0)
        better = np.linspace(0.9, 1.5, 5)[:, None]  # the exact value is what decides
        found = np.exp(sampled.score(x[5:10], better))
    before = hypervolume(values[:5], reference)
    gains = [hypervolume(np.vstack([values[:5], [[*z[5 + i], better[i, 0]]]]), reference) - before for i in range(5)]
    assert found == pytest.approx(gains, rel=0.15, abs=0.02)


def test_what_is_on_its_way_is_worth_less_a_second_time() -> None:
    rng = np.random.default_rng(0)
    x, exact = rng.random((20, 2)), rng.random((20, 1))
    with reproducible(0):
        models = [GaussianProcesses.fit(x, y) for y in rng.random((2, 20))]
        sampled = SampledImprovement(models, x, exact, reference=np.full(3, -3.0), seed=0)
        new, cost = rng.random((1, 2)), np.array([[0.8]])
        before = sampled.score(new, cost)
        sampled.believe(new, cost)
        assert sampled.score(new, cost) < before
