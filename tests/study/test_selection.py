from autopeft.study import (
    Study,
    TrialKind,
    best_baseline,
    best_of,
    best_within_budget,
    quality,
    search_front,
    to_confirm,
)
from tests.study.builders import make_spec, make_trial

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
