import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from autopeft.samplers import _surrogate
from autopeft.samplers._gaussian_process import FitError, GaussianProcess
from autopeft.samplers._priors import DimensionScaled, SparseAxes
from autopeft.samplers._surrogate import GaussianProcesses, Quality, SurrogateError, reproducible

BOTH = (DimensionScaled(), SparseAxes())


def smooth(x: np.ndarray) -> np.ndarray:
    return 0.6 + 0.1 * np.sin(3 * x[:, 0]) + 0.05 * x[:, 1]


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.random((40, 6))
    return x, smooth(x) + 0.002 * rng.normal(size=40)


def fit(x: np.ndarray, y: np.ndarray, **changes) -> GaussianProcesses:
    with reproducible(0):
        return GaussianProcesses.fit(x, y, **changes)


def test_it_predicts_a_smooth_function(data: tuple) -> None:
    surrogate = fit(*data)
    new = np.random.default_rng(1).random((200, 6))
    mean, deviation = surrogate.predict(new)
    error = surrogate.transform.inverse(mean.numpy()) - smooth(new)
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert np.mean(np.abs(mean.numpy() - surrogate.transform(smooth(new))) < 3 * deviation.numpy()) > 0.9
    assert mean.dtype is torch.float64


def test_the_mixture_has_the_mean_and_variance_of_its_parts(data: tuple) -> None:
    """Oracle: many draws from the parts."""
    surrogate = fit(*data, priors=BOTH)
    assert len(surrogate.processes) == 2
    point = np.random.default_rng(2).random((1, 6))
    rng = np.random.default_rng(3)
    parts = [process.predict(torch.as_tensor(point)) for process in surrogate.processes]
    draws = np.concatenate([rng.normal(float(m), float(v.sqrt()), 200_000) for m, v in parts])
    mean, deviation = surrogate.predict(point)
    assert float(mean) == pytest.approx(draws.mean(), abs=0.005)
    assert float(deviation) == pytest.approx(draws.std(), rel=0.01)


def test_believing_leaves_the_mean_and_shrinks_the_deviation(data: tuple) -> None:
    surrogate = fit(*data)
    new = np.random.default_rng(2).random((3, 6))
    mean, deviation = surrogate.predict(new)
    surrogate.believe(new)
    mean_after, deviation_after = surrogate.predict(new)
    assert mean_after.numpy() == pytest.approx(mean.numpy(), abs=0.02)
    assert (deviation_after < deviation).all()
    surrogate.believe(new[:0])


def test_leave_one_out_quality_tells_a_function_from_noise(data: tuple) -> None:
    x, y = data
    quality = fit(x, y).quality
    assert quality.n == 40
    assert quality.rank_correlation > 0.95
    assert quality.log_density > quality.constant_log_density + 1
    assert quality.held_out_rank_correlation > 0.9
    assert not quality.is_worthless
    noise = [fit(x, np.random.default_rng(seed).normal(size=40)).quality for seed in range(10)]
    assert abs(np.mean([item.held_out_rank_correlation for item in noise])) < 0.15
    assert max(item.held_out_rank_correlation for item in noise) < 0.5
    assert np.mean([item.rank_correlation for item in noise]) > 0.2  # why leave-one-out is no judge
    assert 3 <= sum(item.is_worthless for item in noise) <= 9


@pytest.mark.parametrize("n", [40, 400])
def test_held_out_predictions_have_not_seen_what_they_predict(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = _surrogate.fit_processes

    def spy(data, priors):
        seen.append({tuple(row) for row in data.x.tolist()})
        return real(data, priors)

    monkeypatch.setattr(_surrogate, "fit_processes", spy)
    x = np.random.default_rng(0).random((n, 3))
    quality = fit(x, smooth(x)).quality
    everything, *folds = seen
    assert len(everything) == n
    left = [everything - fold for fold in folds]
    assert sum(map(len, left)) == quality.n_held_out == (n if n == 40 else n - 120)
    assert len(set().union(*left)) == quality.n_held_out


def test_the_constant_prediction_is_the_mean_and_variance_of_the_others(data: tuple) -> None:
    surrogate = fit(*data)
    z = surrogate.transform(data[1])
    expected = [stats.norm.logpdf(z[i], np.delete(z, i).mean(), np.delete(z, i).std()) for i in range(len(z))]
    assert surrogate.quality.constant_log_density == pytest.approx(np.mean(expected))


def test_repeated_configurations_are_left_out_together(data: tuple) -> None:
    """Otherwise noise repeated twice would look like something that can be predicted."""
    x, _ = data
    noise = np.random.default_rng(0).normal(size=40)
    again = fit(np.tile(x, (3, 1)), np.tile(noise, 3))
    assert again.quality.n == 40
    assert again.quality.n_held_out == 40
    assert again.quality.held_out_rank_correlation < 0.3


def test_uncertain_observations_pull_less(data: tuple) -> None:
    x, y = data
    wrong = y.copy()
    wrong[:8] -= 0.1
    noise = np.where(np.arange(40) < 8, 0.2, 0.0)
    new = np.random.default_rng(1).random((200, 6))

    def error(surrogate: GaussianProcesses) -> float:
        mean = surrogate.transform.inverse(surrogate.predict(new)[0].numpy())
        return float(np.sqrt(np.mean((mean - smooth(new)) ** 2)))

    assert error(fit(x, wrong, noise_sd=noise)) < 0.5 * error(fit(x, wrong))


def test_equal_values_are_no_problem(data: tuple) -> None:
    x, _ = data
    surrogate = fit(x, np.full(len(x), 0.7))
    mean, deviation = surrogate.predict(x)
    assert surrogate.transform.inverse(mean.numpy()) == pytest.approx(0.7, abs=1e-6)
    assert torch.isfinite(deviation).all()
    assert surrogate.quality.rank_correlation is None
    assert all(value is None or math.isfinite(value) for value in surrogate.quality.to_dict().values())


def test_two_fits_are_identical_whatever_the_thread_count(data: tuple) -> None:
    n_threads = torch.get_num_threads()
    predictions = []
    for n in (1, 2):
        torch.set_num_threads(n)
        predictions.append(fit(*data).predict(data[0])[0])
    torch.set_num_threads(n_threads)
    assert torch.equal(*predictions)


def test_one_observation_is_too_few() -> None:
    with pytest.raises(SurrogateError, match="two observations"):
        GaussianProcesses.fit(np.zeros((1, 3)), np.zeros(1))


def test_failed_fits_are_one_kind_of_error(data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise FitError("not positive definite")

    monkeypatch.setattr(_surrogate, "fit", fail)
    with pytest.raises(SurrogateError, match="40 observations: not positive definite"):
        GaussianProcesses.fit(*data)


def test_one_fit_that_fails_leaves_the_other(data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    real = _surrogate.fit

    def fail_for_sparse(data, prior):
        if not isinstance(prior, DimensionScaled):
            raise torch.linalg.LinAlgError("singular")
        return real(data, prior)

    monkeypatch.setattr(_surrogate, "fit", fail_for_sparse)
    assert len(fit(*data, priors=BOTH).processes) == 1


@pytest.mark.parametrize(
    ("n", "correlation", "worthless"),
    [(15, -0.5, False), (25, -0.1, True), (25, 0.01, False), (25, 0.0, True), (25, None, True)],
)
def test_what_is_worthless(n: int, correlation: float | None, worthless: bool) -> None:
    quality = Quality(
        n=n,
        rank_correlation=0.9,
        log_density=-1.0,
        constant_log_density=-1.5,
        n_held_out=n,
        held_out_rank_correlation=correlation,
    )
    assert quality.is_worthless is worthless


def test_reproducible_leaves_no_trace() -> None:
    torch.manual_seed(3)
    before, n_threads, filters = torch.get_rng_state(), torch.get_num_threads(), list(warnings.filters)
    with reproducible(0):
        assert torch.get_num_threads() == 1
        one = torch.rand(3)
    with reproducible(0):
        assert torch.equal(torch.rand(3), one)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == n_threads
    assert warnings.filters == filters


def test_left_out_predictions_are_those_of_a_process_without_the_configuration(data: tuple) -> None:
    """Oracle: the process with the same hyperparameters given the others; its constant mean is fitted to these."""
    surrogate = fit(*data)
    (process,) = surrogate.processes
    one = math.exp(process.hyperparameters.log_noise)
    found = surrogate.left_out
    assert found.x.tolist() == process.data.x.tolist()
    for i in range(0, 40, 7):
        rest = torch.arange(40) != i
        mean, variance = GaussianProcess(process.data.take(rest), process.hyperparameters).predict(
            process.data.x[~rest]
        )
        assert found.mean[i] == pytest.approx(float(mean), abs=0.02)
        assert found.deviation[i] == pytest.approx(math.sqrt(float(variance) + one), rel=0.02)


def test_what_is_believed_later_is_not_left_out(data: tuple) -> None:
    surrogate = fit(*data)
    before = surrogate.left_out
    surrogate.believe(np.random.default_rng(2).random((3, 6)))
    assert surrogate.left_out is before
    assert len(before.mean) == 40
