from dataclasses import replace

from autopeft.objectives import COSTS, Constraint, Direction, Objective
from autopeft.study import (
    Study,
    TrialKind,
    best_baseline,
    best_of,
    best_within_budget,
    keeps_constraints,
    quality,
    search_front,
    to_confirm,
    unkept_constraints,
)
from tests.study.builders import ACCURACY, make_measurement, make_spec, make_trial

TRIALS = (
    make_trial(0, 0.90, 90_000, kind=TrialKind.BASELINE, label="full"),
    make_trial(1, 0.70, 900, kind=TrialKind.BASELINE, label="LoRA r=8"),
    make_trial(2, 0.75, 1000),
    make_trial(3, 0.80, 2000),
    make_trial(4, 0.80, 1500),
    make_trial(5, None, 10),
)
STUDY = Study(spec=make_spec(budget=5000), trials=TRIALS)


def numbers(trials) -> list[int]:
    return [item.number for item in trials]


def test_the_budget_excludes_and_of_equals_the_cheaper_wins() -> None:
    assert best_within_budget(STUDY) is TRIALS[4]
    assert best_baseline(STUDY) is TRIALS[1]
    assert best_of(STUDY, TRIALS) is TRIALS[0]


def test_failures_have_no_quality_and_are_never_best() -> None:
    assert quality(STUDY, TRIALS[5]) is None
    assert best_of(STUDY, [TRIALS[5]]) is None


def test_the_front_is_the_searchs_own() -> None:
    assert numbers(search_front(STUDY).trials) == [2, 4]


def test_the_top_of_the_front_and_the_best_baseline_are_confirmed() -> None:
    assert numbers(to_confirm(STUDY, 5)) == [4, 2, 1]
    assert numbers(to_confirm(STUDY, 1)) == [4, 1]
    assert to_confirm(STUDY, 0) == ()


def test_an_error_of_zero_is_the_best_there_is_and_comes_first() -> None:
    objectives = (Objective(name="accuracy", direction=Direction.MINIMIZE), COSTS["trainable_parameters"])
    trials = (make_trial(0, 0.5, 100), make_trial(1, 0.0, 900), make_trial(2, 0.2, 500), make_trial(3, None, 10))
    study = Study(spec=make_spec(objectives=objectives), trials=trials)
    assert numbers(to_confirm(study, 5)) == [1, 2, 0]


def test_of_equally_good_members_the_smallest_is_confirmed_first() -> None:
    """Both are on the front: the larger one trains faster."""
    slow, fast = make_trial(1, 0.0, 500), make_trial(0, 0.0, 900)
    measurement = replace(make_measurement(0.0), costs={"wall_time_s": 0.5})
    objectives = (ACCURACY, COSTS["trainable_parameters"], COSTS["wall_time_s"])
    study = Study(spec=make_spec(objectives=objectives), trials=(replace(fast, measurements=(measurement,)), slow))
    assert numbers(search_front(study).trials) == [0, 1]
    assert numbers(to_confirm(study, 1)) == [1]


def test_constraints_bound_the_front_the_recommendation_and_the_baseline() -> None:
    study = replace(STUDY, spec=replace(STUDY.spec, constraints=(Constraint.parse("trainable_parameters<=1200"),)))
    assert numbers(search_front(study).trials) == [2]
    assert best_within_budget(study) is TRIALS[2]
    study = replace(STUDY, spec=replace(STUDY.spec, constraints=(Constraint.parse("accuracy>=0.78"),)))
    assert numbers(search_front(study).trials) == [4]
    assert best_baseline(study) is None


def test_what_was_not_measured_is_not_known_to_keep_a_constraint() -> None:
    study = replace(STUDY, spec=replace(STUDY.spec, constraints=(Constraint.parse("peak_memory_bytes<=1G"),)))
    assert not keeps_constraints(study, TRIALS[2])
    assert search_front(study).trials == ()


def test_export_classes_are_a_matter_of_what_is_proposed() -> None:
    study = replace(STUDY, spec=replace(STUDY.spec, constraints=(Constraint.parse("export_class=native"),)))
    assert numbers(search_front(study).trials) == [2, 4]


def limited(*constraints: Constraint, trials=TRIALS) -> Study:
    return Study(spec=make_spec(constraints=constraints), trials=trials)


def test_constraints_that_no_trial_keeps_are_named_with_what_comes_nearest() -> None:
    """Search trials 2 to 4 reach 0.75, 0.80 and 0.80 in 1.5 s; trial 0, which is better, is a baseline."""
    high, fast = Constraint(name="accuracy", lower=0.85), Constraint(name="wall_time_s", upper=1.0)
    unknown = Constraint(name="latency_s", upper=1.0)
    assert unkept_constraints(limited(high)) == (
        "None of the 3 measured search trials keeps accuracy>=0.85 (the nearest is 0.8, trial 3)."
    )
    found = unkept_constraints(limited(high, fast, unknown)) or ""
    assert "accuracy>=0.85 (the nearest is 0.8, trial 3); wall_time_s<=1 (the nearest is 1.5, trial 2); " in found
    assert found.endswith("latency_s<=1 (it was measured in no trial).")
    assert (unkept_constraints(limited(high, trials=TRIALS[2:3])) or "").startswith(
        "The only measured search trial does not keep accuracy>=0.85"
    )


def test_constraints_that_are_only_kept_apart_are_named_together() -> None:
    high, small = Constraint(name="accuracy", lower=0.78), Constraint(name="trainable_parameters", upper=1200.0)
    assert unkept_constraints(limited(high, small)) == (
        "None of the 3 measured search trials keeps accuracy>=0.78 and trainable_parameters<=1200 together."
    )


def test_what_is_kept_or_was_not_measured_is_no_complaint() -> None:
    high = Constraint(name="accuracy", lower=0.78)
    assert unkept_constraints(limited(high)) is None
    assert unkept_constraints(limited()) is None
    assert unkept_constraints(limited(high, trials=TRIALS[5:])) is None
