from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from autopeft.objectives import COSTS, Constraint, Direction, Objective
from autopeft.orchestrate import Interval
from autopeft.orchestrate._confirm import Confirmed, confirmation_seeds, enqueue_confirmations, headline, summarize
from autopeft.orchestrate._statistics import seed_interval
from autopeft.store import MemoryStore
from autopeft.study import Measurement, Study, Trial, TrialKind
from tests.study.builders import make_draft, make_measurement, make_spec, make_trial

N = 400
TARGETS = np.zeros(N)


def predictions(accuracy: float, shift: int = 0) -> tuple[float, ...]:
    """Right on the first share of the examples, wrong on the rest."""
    values = np.ones(N)
    values[: round(accuracy * N)] = 0
    return tuple(np.roll(values, shift))


class ToyTask:
    report = SimpleNamespace(targets=TARGETS)
    search = SimpleNamespace(targets=np.arange(N) % 2)
    label_names = ("no", "yes")
    n_labels = 2

    def evaluate(self, predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {"accuracy": float((predicted == targets).mean())}


def study_with(confirmed: dict[int, list[tuple[float, float]]]) -> Study:
    """Trial 0 is a baseline, 1 and 2 are on the search front; confirmations as (search, report) accuracies."""
    trials: list[Trial] = [
        make_trial(0, 0.70, 900, kind=TrialKind.BASELINE, label="LoRA r=8"),
        make_trial(1, 0.75, 1000),
        make_trial(2, 0.80, 2000),
    ]
    for parent, scores in confirmed.items():
        for seed, (search, report) in enumerate(scores, start=1):
            trials.append(
                make_trial(
                    len(trials),
                    search,
                    trials[parent].draft.trainable_parameters,
                    kind=TrialKind.CONFIRMATION,
                    seed=seed,
                    parent=parent,
                    label=trials[parent].draft.label,
                    report=report,
                    predictions=predictions(report, shift=seed),
                )
            )
    return Study(spec=make_spec(), trials=tuple(trials))


def test_the_search_split_chooses_and_the_report_split_only_scores() -> None:
    """Trial 1 repeats better on the search split, trial 2 would look better on the report split."""
    study = study_with({0: [(0.7, 0.5)] * 3, 1: [(0.78, 0.7)] * 3, 2: [(0.74, 0.9)] * 3})
    summary = summarize(study, ToyTask())  # type: ignore[arg-type]
    assert summary["recommended"] == 1
    assert summary["best_baseline"] == 0
    assert summary["difference"]["mean"] == pytest.approx(0.2)
    assert summary["difference"]["low"] > 0
    assert "(mean of 3 seeds): 20.0 points better [" in summary["headline"]
    assert summary["headline"].endswith(
        "] than the best baseline within the budget, LoRA r=8, at 1.11 times its parameters."
    )
    assert [row["trial"] for row in summary["confirmed"]] == [0, 1, 2]


def test_no_difference_is_said_when_there_is_none() -> None:
    study = study_with({0: [(0.7, 0.70), (0.7, 0.72)], 1: [(0.78, 0.71), (0.78, 0.70)]})
    summary = summarize(study, ToyTask())  # type: ignore[arg-type]
    assert "No difference found" in summary["headline"]
    assert summary["difference"]["low"] < 0 < summary["difference"]["high"]


def test_a_baseline_that_is_measured_better_is_what_to_use() -> None:
    study = study_with({0: [(0.7, 0.9)] * 3, 1: [(0.78, 0.7)] * 3})
    said = summarize(study, ToyTask())["headline"]  # type: ignore[arg-type]
    assert ": 20.0 points worse [" in said
    assert said.endswith("LoRA r=8, at 1.11 times its parameters. Use the baseline, trial 0: it is better.")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (
            -0.375,
            -0.125,
            ": 0.2500 rmse better [0.1250, 0.3750] than the best baseline within the budget, LoRA r=8, at",
        ),
        (0.125, 0.375, ": 0.2500 rmse worse [0.1250, 0.3750] than the best baseline within the budget, LoRA r=8, at"),
        (
            -0.5,
            0.75,
            ". No difference found against the best baseline within the budget, LoRA r=8: +0.1250 rmse [-0.5000,",
        ),
        (-1500.0, -500.0, ": 1000.0000 rmse better [500.0000, 1500.0000] than"),
    ],
)
def test_a_difference_in_an_error_has_its_own_unit_and_smaller_is_better(
    low: float, high: float, expected: str
) -> None:
    rmse = Objective(name="rmse", direction=Direction.MINIMIZE)
    baseline, best = make_trial(0, 0.5, 900, kind=TrialKind.BASELINE, label="LoRA r=8"), make_trial(1, 0.5, 1000)
    score = Interval(mean=0.5, low=0.4, high=0.6, n_seeds=3, n_examples=N)
    chosen, against = (Confirmed(trial=item, repeats=(), search_mean=0.5, report=score) for item in (best, baseline))
    study = Study(spec=make_spec(objectives=(rmse, COSTS["trainable_parameters"])), trials=(baseline, best))
    difference = Interval(mean=(low + high) / 2, low=low, high=high, n_seeds=3, n_examples=N)
    said = headline(study, chosen, best, against, difference)
    assert expected in said
    assert ("Use the baseline, trial 0" in said) == (low > 0)


def test_without_confirmation_the_search_score_is_named_as_such() -> None:
    summary = summarize(study_with({}), ToyTask())  # type: ignore[arg-type]
    assert summary["recommended"] == 2
    assert summary["difference"] is None
    assert "Not confirmed" in summary["headline"]


def test_over_budget_members_are_never_recommended() -> None:
    trials = (make_trial(0, 0.9, 9000), make_trial(1, 0.6, 100))
    summary = summarize(Study(spec=make_spec(budget=5000), trials=trials), ToyTask())  # type: ignore[arg-type]
    assert summary["recommended"] == 1


def test_confirmations_are_added_once_and_never_with_the_search_seed() -> None:
    store = MemoryStore()
    spec = make_spec()
    store.create_study(spec)
    for rank, (kind, accuracy, cost) in enumerate(
        [(TrialKind.BASELINE, 0.7, 900), (TrialKind.SEARCH, 0.8, 2000), (TrialKind.SEARCH, 0.75, 1000)], start=1
    ):
        trial = store.add_trial(spec.name, make_draft(rank=rank, cost=cost, kind=kind))
        store.claim_trial(spec.name, "host:1:1", lease_s=60)
        store.complete_trial(spec.name, trial.number, "host:1:1", [make_measurement(accuracy)])
    study = store.load_study(spec.name)
    assert enqueue_confirmations(store, study, top=1, seeds=2) == 4
    assert enqueue_confirmations(store, store.load_study(spec.name), top=1, seeds=2) == 0
    added = store.load_study(spec.name).of_kind(TrialKind.CONFIRMATION)
    assert sorted({item.draft.parent for item in added}) == [0, 1]
    assert {item.draft.seed for item in added} == set(confirmation_seeds(0, 2))
    assert 0 not in confirmation_seeds(0, 2)
    assert enqueue_confirmations(store, study, top=0, seeds=2) == 0


def test_the_interval_of_a_score_ends_where_the_metric_does() -> None:
    study = study_with({1: [(0.78, 0.99), (0.78, 1.0)]})
    row = summarize(study, ToyTask())["confirmed"][0]  # type: ignore[arg-type]
    assert row["report_mean"] <= row["report_high"] <= 1.0


def test_further_objectives_and_rewards_are_summarized_over_seeds_on_both_splits() -> None:
    study = study_with({1: [(0.78, 0.7), (0.79, 0.7), (0.8, 0.7)], 2: [(0.7, 0.7)]})
    minimize = Direction.MINIMIZE
    spec = replace(
        study.spec,
        objectives=(study.spec.objectives[0], Objective(name="memorization", direction=minimize)),
        rewards={"shine": {"reference": "m:f", "direction": "maximize", "unit": "lm", "settings": {}}},
    )

    def rewarded(item: Measurement) -> Measurement:
        shift = 0.0 if item.split == "search" else 0.1
        return replace(item, metrics={**item.metrics, "memorization": item.metrics["accuracy"] / 2 + shift})

    trials = tuple(replace(item, measurements=tuple(map(rewarded, item.measurements))) for item in study.trials)
    first, second = summarize(Study(spec=spec, trials=trials), ToyTask())["confirmed"]  # type: ignore[arg-type]
    search = first["secondary"]["memorization"]["search"]
    mean, low, high = seed_interval([0.39, 0.395, 0.4]) or (0, 0, 0)
    assert search == pytest.approx({"mean": mean, "low": low, "high": high})
    assert first["secondary"]["memorization"]["report"]["mean"] == pytest.approx(0.45)
    # Recorded, but measured on no trial: missing, not zero.
    assert first["secondary"]["shine"] == {"search": None, "report": None}
    # One seed has no interval.
    assert second["secondary"]["memorization"]["search"] == {"mean": pytest.approx(0.35)}


def test_constraints_that_no_trial_keeps_are_in_the_headline_and_nothing_is_recommended() -> None:
    study = study_with({})
    study = replace(study, spec=replace(study.spec, constraints=(Constraint(name="accuracy", lower=0.9),)))
    summary = summarize(study, ToyTask())  # type: ignore[arg-type]
    assert summary["recommended"] is None
    assert "accuracy>=0.9 (the nearest is 0.8, trial 2)" in summary["headline"]
    assert "failures" not in summary["headline"]
