"""Oracles: the hypervolume that is gained by certain values, and BoTorch's acquisition function."""

import numpy as np
import pytest
import torch
from scipy import stats

from autopeft.objectives import hypervolume
from autopeft.samplers import _sampled
from autopeft.samplers._sampled import SampledImprovement
from autopeft.samplers._surrogate import GaussianProcesses, reproducible
from tests.samplers.botorch_oracle import log_improvement, to_botorch


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


def exact_values(points: np.ndarray, n: int) -> np.ndarray:
    """Two exact objectives of which one follows from the other, as stored bytes do from parameters (n of them)."""
    return np.column_stack([points[:, 0], 0.5 + points[:, 0] ** 2])[:, :n]


def fitted(x: np.ndarray, n: int, rng: np.random.Generator) -> list[GaussianProcesses]:
    y = np.sin(2 * x @ rng.normal(size=(3, n))) + 0.1 * rng.normal(size=(len(x), n))
    return [GaussianProcesses.fit(x, column) for column in y.T]


@pytest.mark.parametrize(("n_measured", "n_exact", "n_pending"), [(2, 0, 0), (2, 1, 2), (2, 2, 0), (3, 1, 0)])
def test_it_is_botorchs(n_measured: int, n_exact: int, n_pending: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """qLogNoisyExpectedHypervolumeImprovement samples the candidates too: where few samples improve, it is noise."""
    monkeypatch.setattr(_sampled, "_N_DRAWS", 512)
    rng = np.random.default_rng(n_measured + 10 * n_exact)
    x, new, pending = rng.random((12, 3)), rng.random((25, 3)), rng.random((n_pending, 3))
    reference = np.repeat([-1.0, -0.1], [n_measured, n_exact])
    with reproducible(0):
        models = fitted(x, n_measured, rng)
        ours = SampledImprovement(models, x, exact_values(x, n_exact), reference=reference, seed=0)
        ours.believe(pending, exact_values(pending, n_exact))
        found = ours.score(new, exact_values(new, n_exact))
        theirs = log_improvement(
            models,
            (x, exact_values(x, n_exact)),
            (new, exact_values(new, n_exact)),
            reference=reference,
            n_samples=512,
            pending=(pending, exact_values(pending, n_exact)) if n_pending else None,
        )
    many = theirs > -4
    assert many.sum() >= 5
    assert stats.spearmanr(found[many], theirs[many]).statistic > 0.97
    assert np.exp(found) == pytest.approx(np.exp(theirs), rel=0.15, abs=0.02)


@pytest.mark.parametrize(("n_measured", "n_exact"), [(1, 2), (2, 1)])
def test_it_is_the_mean_gain_over_joint_draws(n_measured: int, n_exact: int) -> None:
    """Brute force: front and candidate drawn together by BoTorch, hypervolumes with and without the candidate."""
    rng = np.random.default_rng(0)
    x, new = rng.random((8, 3)), rng.random((8, 3))
    exact, cost = exact_values(x, n_exact), exact_values(new, n_exact)
    reference = np.repeat([-1.0, -0.1], [n_measured, n_exact])
    with reproducible(0):
        models = fitted(x, n_measured, rng)
        found = np.exp(SampledImprovement(models, x, exact, reference=reference, seed=0).score(new, cost))
        points, n_draws = torch.as_tensor(np.vstack([x, new])), 1000
        with torch.no_grad():
            drawn = [
                to_botorch(item.process, n_more=0).posterior(points).rsample(torch.Size([n_draws])) for item in models
            ]
        values = torch.cat(drawn, dim=-1).numpy()
    gains = np.zeros(len(new))
    for draw in values:
        front = np.hstack([draw[:8], exact])
        before = hypervolume(front, reference)
        gains += [
            hypervolume(np.vstack([front, [*draw[8 + i], *cost[i]]]), reference) - before for i in range(len(new))
        ]
    assert found == pytest.approx(gains / n_draws, rel=0.15, abs=0.01)


def test_scores_do_not_depend_on_what_is_scored_beside() -> None:
    rng = np.random.default_rng(0)
    x, exact = rng.random((20, 2)), rng.random((20, 1))
    with reproducible(0):
        models = [GaussianProcesses.fit(x, y) for y in rng.random((2, 20))]
        sampled = SampledImprovement(models, x, exact, reference=np.full(3, -3.0), seed=0)
        together = sampled.score(x[:7] + 0.1, exact[:7])
        alone = [sampled.score(x[i : i + 1] + 0.1, exact[i : i + 1])[0] for i in range(7)]
        assert sampled.score(x[:0], exact[:0]).shape == (0,)
    assert together == pytest.approx(alone, rel=1e-9)


def test_repeated_trials_of_a_point_are_one_point() -> None:
    rng = np.random.default_rng(0)
    x, exact = rng.random((12, 2)), rng.random((12, 1))
    with reproducible(0):
        models = [GaussianProcesses.fit(x, y) for y in rng.random((2, 12))]
        new, cost = rng.random((5, 2)), rng.random((5, 1))
        once, twice = (
            SampledImprovement(
                models, np.vstack([x] * n), np.vstack([exact] * n), reference=np.full(3, -3.0), seed=0
            ).score(new, cost)
            for n in (1, 2)
        )
    assert once.tolist() == twice.tolist()
