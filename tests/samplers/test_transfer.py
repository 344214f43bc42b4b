"""A surrogate that starts from others; oracles: pairs counted by hand, BoTorch, and the problem's noise-free truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from autopeft.samplers._encoding import Encoder
from autopeft.samplers._goal import fit_default
from autopeft.samplers._points import PointSource
from autopeft.samplers._transfer import SourceModel, TransferSurrogate, ranking_weights
from tests.samplers.botorch_oracle import to_botorch
from tests.samplers.earlier import Related, draw_points
from tests.samplers.problem import small_space

SPACE = small_space()
POINTS = [PointSource(SPACE).make(item) for item in draw_points(SPACE, 150)]
X = Encoder(SPACE).encode(POINTS)


def measured(task: int, family: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and true accuracies of all points."""
    problem = Related(SPACE, family, task)
    rows = [(problem.measure(item.configuration)[0], problem.true_accuracy(item.configuration)) for item in POINTS]
    return tuple(np.array(rows).T)


NEW, TRUE = measured(0)
OLD = measured(1)[0]


def source(values: np.ndarray, name: str = "source", n: int = 60) -> SourceModel:
    chosen = np.random.default_rng(1).choice(len(X), n, replace=False)
    model = SourceModel.fit(name, X[chosen], values[chosen])
    assert model is not None
    return model


def own(n: int, seed: int = 0):
    chosen = np.random.default_rng(seed).choice(len(X), n, replace=False)
    return chosen, fit_default(X[chosen], NEW[chosen], np.zeros(n))


class TestRankingWeights:
    RNG = np.random.default_rng(0)

    def weights(self, observed: list, *models: list) -> list[float]:
        found = ranking_weights(
            np.array(observed, float),
            np.array(models[0], float),
            [np.array(item, float) for item in models[1:]],
            np.random.default_rng(0),
        )
        return found.tolist()

    def test_a_source_that_orders_everything_right_beats_an_own_model_that_does_not(self) -> None:
        own_weight, weight = self.weights([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6])
        assert weight > 0.99
        assert own_weight + weight == pytest.approx(1)

    def test_a_reversed_source_gets_nothing(self) -> None:
        assert self.weights([1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 6, 5], [6, 5, 4, 3, 2, 1]) == [1, 0]

    def test_a_source_that_is_no_better_than_a_coin_gets_nothing_however_bad_the_own_model(self) -> None:
        """A model without knowledge predicts the mean of the others, which is the wrong order throughout."""
        assert self.weights([1, 2, 3, 4], [4, 3, 2, 1], [3, 4, 1, 2]) == [1, 0]
        assert self.weights([1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 4, 3])[1] > 0.8

    def test_the_own_model_takes_ties(self) -> None:
        assert self.weights([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]) == [1, 0, 0]

    def test_equal_sources_share(self) -> None:
        found = self.weights([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60])
        assert found[1] == found[2] > 0.49

    def test_useless_sources_do_not_dilute_good_ones(self) -> None:
        """Twenty random rankings beside a perfect one: dropped, because the own model is better than they are."""
        observed, rng = np.arange(12.0), np.random.default_rng(3)
        mediocre = observed + rng.normal(0, 2.5, 12)
        noise = [rng.permutation(12).astype(float) for _ in range(20)]
        found = ranking_weights(observed, mediocre, [observed, *noise], np.random.default_rng(0))
        assert found[1] > 0.95

    def test_a_model_that_says_the_same_of_all_is_half_wrong(self) -> None:
        """Against exactly the pairs of a bootstrap sample, counted one by one."""
        from autopeft.samplers._transfer import _misordered

        observed, guess = np.array([3.0, 1.0, 2.0, 2.0]), np.array([1.0, 1.0, 2.0, 0.5])
        found = _misordered(observed, guess)
        for i, j in itertools.product(range(4), repeat=2):
            actual, said = np.sign(observed[i] - observed[j]), np.sign(guess[i] - guess[j])
            expected = 0.0 if actual == 0 or actual == said else 0.5 if said == 0 else 1.0
            assert found[i, j] == expected


def test_a_source_needs_trials_that_differ() -> None:
    assert SourceModel.fit("few", X[:5], OLD[:5]) is None
    assert SourceModel.fit("constant", X[:20], np.ones(20)) is None


def test_with_few_trials_a_related_source_predicts_unseen_configurations_better() -> None:
    gains = []
    for seed in range(4):
        chosen, alone = own(8, seed)
        shifted = TransferSurrogate.fit(alone, [source(OLD)], seed=0)
        rest = np.setdiff1d(np.arange(len(X)), chosen)
        gains.append(
            spearmanr(shifted.predict(X[rest])[0], TRUE[rest]).statistic
            - spearmanr(alone.predict(X[rest])[0], TRUE[rest]).statistic
        )
    assert np.mean(gains) > 0.1


def test_a_reversed_source_changes_nothing_at_all() -> None:
    for n in (8, 20):
        _, alone = own(n)
        assert TransferSurrogate.fit(alone, [source(1 - OLD)], seed=0) is alone


def test_without_sources_or_with_too_few_trials_nothing_changes() -> None:
    _, alone = own(8)
    assert TransferSurrogate.fit(alone, [], seed=0) is alone
    _, three = own(3)
    assert TransferSurrogate.fit(three, [source(OLD)], seed=0) is three


def test_it_is_a_function_of_its_data() -> None:
    _, alone = own(10)
    first, second = (TransferSurrogate.fit(alone, [source(OLD)], seed=3) for _ in range(2))
    assert torch.equal(first.predict(X)[0], second.predict(X)[0])


def shifted(n: int = 10) -> TransferSurrogate:
    _, alone = own(n)
    found = TransferSurrogate.fit(alone, [source(OLD)], seed=0)
    assert isinstance(found, TransferSurrogate)
    return found


def test_its_weights_are_named_and_its_quality_beats_the_constant() -> None:
    found = shifted()
    assert 0 < found.weights["source"] <= 1
    assert found.quality.log_density > found.quality.constant_log_density
    assert found.quality.n == 10


def test_what_it_predicts_without_a_configuration_is_the_shift_and_what_is_left_over() -> None:
    """Oracle: the definition, with the closed form of the process of what is left over."""
    found = shifted()
    mean, variance = (item.numpy() for item in found.process.leave_one_out())
    x = found.process.data.x.numpy()
    assert found.left_out.x.tolist() == x.tolist()
    assert found.left_out.mean == pytest.approx(found.shift.mean(x) + found.shift.spread * mean)
    assert found.left_out.deviation == pytest.approx(found.shift.spread * np.sqrt(variance))


def test_believing_keeps_the_mean_and_shrinks_the_doubt() -> None:
    found = shifted()
    before, doubt = found.predict(X[:20])
    found.believe(X[:20])
    after, less = found.predict(X[:20])
    assert torch.allclose(before, after, atol=0.02)
    assert bool((less < doubt + 1e-9).all())
    assert float(less.sum()) < 0.8 * float(doubt.sum())


def test_near_its_data_it_predicts_what_was_observed() -> None:
    chosen, alone = own(12)
    found = TransferSurrogate.fit(alone, [source(OLD)], seed=0)
    mean, deviation = found.predict(X[chosen])
    error = np.abs(found.transform.inverse(mean.numpy()) - NEW[chosen])
    assert np.median(error) < 0.01  # the noise is 0.006
    assert bool((deviation > 0).all())


def test_botorch_agrees_on_the_shifted_process() -> None:
    """The same posterior by BoTorch's algebra, the shift as its prior mean; and joint samples can be drawn."""
    found = shifted()
    model = to_botorch(found.process, n_more=1, shift=found.shift)
    points = torch.as_tensor(np.hstack([X[:25], np.zeros((25, 1))]))
    with torch.no_grad():
        posterior = model.posterior(points)
    mean, variance = found.process.predict(torch.as_tensor(X[:25]))
    spread = found.shift.spread
    expected = found.shift.mean(X[:25]) + spread * mean.numpy()
    np.testing.assert_allclose(posterior.mean.squeeze(-1).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(posterior.variance.squeeze(-1).numpy(), spread**2 * variance.numpy(), rtol=1e-4)
    assert posterior.rsample(torch.Size([3])).shape == (3, 25, 1)
