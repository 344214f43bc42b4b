"""Oracle: gains written out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from autopeft.samplers._history import Evidence, History
from autopeft.samplers._rungs import RungGains
from autopeft.study import CurvePoint, Rung, Trial, TrialState
from tests.samplers.problem import ACCURACY, FIDELITY, PARAMETERS, make_trial, small_space

SPACE = small_space()
RNG = np.random.default_rng(0)
CONFIGURATIONS = [SPACE.compile(SPACE.sample(RNG)) for _ in range(8)]


def completed(number: int, at_rung: float, end: float, *, step: int = 5) -> Trial:
    points = [
        CurvePoint(step=step, epoch=0.5, metrics={"accuracy": at_rung}, wall_time_s=1.0),
        CurvePoint(step=10, epoch=1.0, metrics={"accuracy": end}, wall_time_s=2.0),
    ]
    return replace(make_trial(number, CONFIGURATIONS[number], SPACE, values=(end, 2.0)), curve=tuple(points))


def stopped(number: int, value: float, *, step: int = 50, n_steps: int = 100) -> Trial:
    trial = make_trial(number, CONFIGURATIONS[number], SPACE, values=(value, 1.0), state=TrialState.PRUNED)
    at_rung = replace(trial.measurements[0], rung=Rung(step=step, n_steps=n_steps))
    return replace(trial, measurements=(at_rung,))


def test_a_stopped_trial_is_moved_by_the_median_gain_with_its_spread_as_noise() -> None:
    """Gains 0.1, 0.1, 0.3, 0.0: median 0.1, median absolute deviation 0.05."""
    trials = [completed(i, 0.5, 0.5 + gain) for i, gain in enumerate((0.1, 0.1, 0.3, 0.0))]
    values, noise = RungGains(trials, ["accuracy"]).extrapolate(stopped(5, 0.4), [0.4])
    assert values == pytest.approx([0.5])
    assert noise == pytest.approx((1.4826 * 0.05,))


def test_other_rungs_say_nothing() -> None:
    trials = [completed(i, 0.5, 0.6, step=2) for i in range(4)]
    assert RungGains(trials, ["accuracy"]).extrapolate(stopped(5, 0.4), [0.4]) == ([0.4], (0.0,))


def test_two_completed_trials_are_too_few() -> None:
    trials = [completed(i, 0.5, 0.6) for i in range(2)]
    assert RungGains(trials, ["accuracy"]).extrapolate(stopped(5, 0.4), [0.4]) == ([0.4], (0.0,))


def test_what_curves_do_not_report_stays_as_it_is() -> None:
    trials = [completed(i, 0.5, 0.6) for i in range(4)]
    values, noise = RungGains(trials, ["accuracy", "wall_time_s"]).extrapolate(stopped(5, 0.4), [0.4, 1.0])
    assert values == pytest.approx([0.5, 1.0])
    assert noise == pytest.approx((0.0, 0.0))


def test_the_history_of_a_study_with_stopped_trials() -> None:
    trials = [*(completed(i, 0.5, 0.5 + gain) for i, gain in enumerate((0.1, 0.1, 0.3, 0.0))), stopped(5, 0.4)]
    found = History.of(trials, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY).observations[-1]
    assert found.evidence is Evidence.PRUNED
    assert found.values == pytest.approx((0.5,))
    assert found.noise_sd == pytest.approx((1.4826 * 0.05,))
