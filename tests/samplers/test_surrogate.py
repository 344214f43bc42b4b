import warnings

import numpy as np
import pytest
import torch

from autopeft.samplers import _surrogate
from autopeft.samplers._surrogate import Surrogate, SurrogateError, reproducible


def smooth(x: np.ndarray) -> np.ndarray:
    return 0.6 + 0.1 * np.sin(3 * x[:, 0]) + 0.05 * x[:, 1]


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.random((40, 6))
    return x, smooth(x) + 0.002 * rng.normal(size=40)


def fit(x: np.ndarray, y: np.ndarray) -> Surrogate:
    with reproducible(0):
        return Surrogate(x, y)


def test_it_predicts_a_smooth_function_in_its_own_units(data: tuple) -> None:
    surrogate = fit(*data)
    new = np.random.default_rng(1).random((200, 6))
    mean, deviation = surrogate.predict(new)
    error = mean.numpy() - smooth(new)
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert np.mean(np.abs(error) < 3 * deviation.numpy()) > 0.9
    assert mean.dtype is torch.float64


def test_standardised_predictions_are_the_same_up_to_units(data: tuple) -> None:
    x, y = data
    surrogate = fit(x, y)
    z, spread = surrogate.predict_standardized(x)
    mean, deviation = surrogate.predict(x)
    assert (z * y.std(ddof=1) + y.mean()).numpy() == pytest.approx(mean.numpy())
    assert (spread * y.std(ddof=1)).numpy() == pytest.approx(deviation.numpy())


def test_believing_leaves_the_mean_and_shrinks_the_deviation(data: tuple) -> None:
    surrogate = fit(*data)
    new = np.random.default_rng(2).random((3, 6))
    mean, deviation = surrogate.predict(new)
    surrogate.believe(new)
    mean_after, deviation_after = surrogate.predict(new)
    assert mean_after.numpy() == pytest.approx(mean.numpy(), abs=1e-6)
    assert (deviation_after < 0.99 * deviation).all()
    surrogate.believe(new[:0])


def test_equal_values_are_no_problem(data: tuple) -> None:
    x, _ = data
    mean, deviation = fit(x, np.full(len(x), 0.7)).predict(x)
    assert mean.numpy() == pytest.approx(0.7, abs=1e-6)
    assert torch.isfinite(deviation).all()


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
        Surrogate(np.zeros((1, 3)), np.zeros(1))


def test_a_failed_fit_is_one_kind_of_error(data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(_surrogate, "fit_gpytorch_mll", fail)
    with pytest.raises(SurrogateError, match="40 observations: not positive definite"):
        Surrogate(*data)


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
