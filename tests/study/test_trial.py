from autopeft.study import TrialKind, TrialState
from tests.study.builders import make_draft, make_trial


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
