from dataclasses import replace

from autopeft.study import CurvePoint, Rung, TrialKind, TrialState
from tests.study.builders import make_draft, make_measurement, make_trial


def test_a_baseline_and_a_search_trial_of_the_same_configuration_are_the_same_run() -> None:
    assert make_draft().identity == make_draft(kind=TrialKind.BASELINE, label="x").identity
    assert make_draft().identity != make_draft(kind=TrialKind.CONFIRMATION, parent=0).identity
    assert make_draft().identity != make_draft(seed=1).identity
    assert make_draft().identity != make_draft(rank=5).identity


def test_parameters_are_known_without_a_measurement_and_metrics_are_not() -> None:
    failed = make_trial(0, None, 123)
    assert failed.value("trainable_parameters") == 123
    assert failed.value("accuracy") is None
    assert failed.state is TrialState.FAILED
    assert failed.state.is_finished
    assert not TrialState.RUNNING.is_finished


def test_a_pruned_trial_stands_at_its_last_rung_and_a_complete_one_at_its_end() -> None:
    rungs = (Rung(step=3, n_steps=9), Rung(step=1, n_steps=9))
    at_rungs = tuple(replace(make_measurement(0.1 * item.step), rung=item) for item in rungs)
    trial = replace(make_trial(0, 0.5, 10), state=TrialState.PRUNED, measurements=at_rungs)
    assert (trial.rung, trial.value("accuracy")) == (rungs[0], 0.1 * 3)
    done = replace(trial, state=TrialState.COMPLETE, measurements=(*at_rungs, make_measurement(0.9)))
    assert (done.rung, done.value("accuracy")) == (None, 0.9)
    assert replace(trial, measurements=()).rung is None


def test_a_point_of_the_curve_is_found_by_its_step() -> None:
    points = tuple(CurvePoint(step=step, epoch=step / 9, metrics={}, wall_time_s=1.0) for step in (1, 3))
    trial = replace(make_trial(0, 0.5, 10), curve=points)
    assert [trial.point(step) for step in (1, 2, 3)] == [points[0], None, points[1]]
