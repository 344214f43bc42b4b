import pytest

from autopeft.objectives import COSTS, hypervolume, to_maximization
from autopeft.study import Front
from tests.study.builders import ACCURACY, make_trial

OBJECTIVES = (ACCURACY, COSTS["trainable_parameters"])


def test_members_are_the_non_dominated_complete_trials() -> None:
    trials = [
        make_trial(0, 0.7, 1000),
        make_trial(1, 0.6, 2000),
        make_trial(2, 0.8, 4000),
        make_trial(3, None, 10),
        make_trial(4, 0.7, 1000),
    ]
    front = Front.of(trials, OBJECTIVES)
    assert [trial.number for trial in front.trials] == [0, 2]
    y = to_maximization([[0.7, 1000], [0.6, 2000], [0.8, 4000]], OBJECTIVES)
    reference = to_maximization([front.reference_point], OBJECTIVES)[0]
    assert front.hypervolume == pytest.approx(hypervolume(y, reference))


def test_without_measured_trials_nothing_is_made_up() -> None:
    front = Front.of([make_trial(0, None, 10)], OBJECTIVES)
    assert (front.trials, front.reference_point, front.hypervolume) == ((), None, None)
    assert front.knee() is None


def test_knee_is_the_bulge_of_the_front() -> None:
    trials = [make_trial(0, 0.50, 100), make_trial(1, 0.78, 1000), make_trial(2, 0.80, 100_000)]
    knee = Front.of(trials, OBJECTIVES).knee()
    assert knee is not None
    assert knee.number == 1
