import numpy as np
import pytest
from scipy import stats

from autopeft.objectives import Constraint
from autopeft.samplers._feasibility import Feasibility
from autopeft.samplers._history import Evidence, Observation
from autopeft.samplers._surrogate import GaussianProcesses, reproducible
from autopeft.study import TrialKind
from tests.samplers.problem import small_space

SPACE = small_space()
CONSTRAINTS = (Constraint.parse("wall_time_s<=30"), Constraint.parse("accuracy>=0.5"))


def observation(constrained: tuple[float | None, ...] | None) -> Observation:
    configuration = SPACE.compile(SPACE.sample(np.random.default_rng(0)))
    return Observation(
        number=0,
        kind=TrialKind.SEARCH,
        evidence=Evidence.MEASURED,
        configuration=configuration,
        params=None,
        trainable_parameters=1,
        values=(0.5,),
        constrained=constrained,
    )


@pytest.mark.parametrize(
    ("constrained", "holds"),
    [((29.0, 0.6), True), ((31.0, 0.6), False), ((29.0, 0.4), False), ((None, 0.6), True), (None, True)],
)
def test_what_was_measured_decides(constrained: tuple | None, holds: bool) -> None:
    feasibility = Feasibility(constraints=CONSTRAINTS, surrogates=(None, None))
    assert feasibility.holds(observation(constrained)) is holds


def test_without_constraints_everything_is_allowed() -> None:
    assert Feasibility().log_probability(np.zeros((3, 2))).tolist() == [0.0] * 3


def test_the_probability_is_the_share_of_draws_that_keep_the_bounds() -> None:
    """Oracle: draws from the predictions, in natural units."""
    rng = np.random.default_rng(0)
    x = rng.random((25, 2))
    seconds = 20 + 15 * x[:, 0] + rng.normal(size=25)
    both = Constraint(name="wall_time_s", lower=24.0, upper=30.0)
    upper = Constraint(name="wall_time_s", upper=30.0)
    with reproducible(0):
        surrogate = GaussianProcesses.fit(x, seconds)
        new = rng.random((6, 2))
        mean, deviation = (item.numpy() for item in surrogate.predict(new))
        found = Feasibility(constraints=(upper,), surrogates=(surrogate,)).log_probability(new)
        narrow = Feasibility(constraints=(both,), surrogates=(surrogate,)).log_probability(new)
    draws = surrogate.transform.inverse(mean + deviation * rng.normal(size=(20_000, 6)))
    assert np.exp(found) == pytest.approx((draws <= 30).mean(axis=0), abs=0.02)
    assert (narrow <= found).all()
    assert np.isfinite(stats.norm.logcdf(-40.0))  # far from feasible there is still a direction to go


def test_what_failed_is_unlikely_to_succeed_nearby() -> None:
    """Everything right of 0.7 failed: the probability falls from the left to the right."""
    rng = np.random.default_rng(0)
    x = rng.random((30, 2))
    with reproducible(0):
        success = GaussianProcesses.fit(x, (x[:, 0] < 0.7).astype(float))
        points = np.column_stack([np.linspace(0.1, 0.95, 8), np.full(8, 0.5)])
        probability = np.exp(Feasibility(success=success).log_probability(points))
    assert probability[0] > 0.9
    assert probability[-1] < 0.1
