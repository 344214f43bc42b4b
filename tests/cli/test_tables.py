from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from autopeft.cli._tables import front_view, status_view, trial_view, trials_table
from autopeft.export import front_document, render_report, status_document, trials_document
from autopeft.pruners import PRUNING_ATTRIBUTE, pruning_report
from autopeft.store import StudySummary
from autopeft.study import Study, TrialState
from tests.export.studies import STUDIES, failures_only, full_study, hostile_study, rewarded_study
from tests.pruners.simulated import N_STEPS, RUNGS, make_world, pruner, simulate


def shown(content: object, width: int = 140) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(content)
    return stream.getvalue()


@pytest.mark.parametrize("width", [30, 80, 160])
@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_any_study_is_shown_at_any_width(build: Callable[[], Study], width: int) -> None:
    study = build()
    assert study.spec.objectives[0].name in shown(trials_table(study, study.trials, "Trials"), 160)
    assert "Front of the search" in shown(front_view(study, width=width), width)
    for trial in study.trials[:4]:
        assert trial.configuration.fingerprint in shown(trial_view(study, trial), width)


def test_front_view_marks_recommendation_and_baselines_as_the_plot_does() -> None:
    lines = shown(front_view(full_study(), width=140)).splitlines()
    best = next(line for line in lines if line.lstrip().startswith("16 "))
    assert "★" in best
    assert "0.6580" in best
    assert next(line for line in lines if "LoRA r=8 on q,v, lr 0.005" in line and "D" in line.split())


def test_trial_view_has_words_grid_curve_and_environment() -> None:
    study = full_study()
    text = shown(trial_view(study, study.trials[16]))
    assert "ia3 on k of 1 + lora 15-16 on q,v of 4-5" in text
    grid = next(line.split() for line in text.splitlines() if line.startswith("lora q"))
    assert grid == ["lora", "q", "15", "16"]
    assert "Learning curve" in text
    assert "versions.torch" in text
    assert "3.0 GiB" in text


def test_further_objectives_and_rewards_have_columns_with_units() -> None:
    study = rewarded_study()
    text = shown(trials_table(study, study.trials, "Trials"), 240)
    header = next(line for line in text.splitlines() if "accuracy" in line).split()
    assert header[3:8] == ["accuracy", "report", "memorization", "latency_s", "parameters"]
    line = next(line for line in text.splitlines() if line.lstrip().startswith("3 "))
    assert line.split()[3:9] == ["0.6100", "0.6080", "0.3050", "4.25", "ms", "3,000"]
    front = shown(front_view(study, width=240), 240)
    assert "memorization" in front
    assert "reference point accuracy" in front
    results = shown(trial_view(study, study.trials[3]), 240)
    assert "memorization.auc" in results
    assert "4.25 ms" in results


def test_a_failure_is_shown_with_its_traceback() -> None:
    study = failures_only()
    text = shown(trial_view(study, study.trials[0]))
    assert "Failed (divergence): the loss became nan" in text
    assert 'RuntimeError: <boom> & "quoted"' in text


def test_stored_texts_cannot_steer_the_terminal() -> None:
    study = hostile_study("[red]x[/red]\x1b[2J")
    text = shown(front_view(study, width=140)) + shown(trial_view(study, study.trials[1]))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_what_modules_counted_stays_out_of_the_tables() -> None:
    """A mixture of experts at every linear map counts hundreds of numbers."""
    study = full_study()
    trial = study.trials[16]
    counted = {f"layers.{layer}.q.moe_lora.load_{expert}": 0.1 for layer in range(24) for expert in range(8)}
    curve = tuple(replace(point, metrics={**point.metrics, **counted}) for point in trial.curve)
    text = shown(trial_view(study, replace(trial, curve=curve)))
    assert "moe_lora" not in text
    assert "Modules counted 192 further numbers at every point: see --format json." in text
    assert text.replace("\nModules counted 192 further numbers at every point: see --format json.\n", "") == shown(
        trial_view(study, trial)
    )


def pruned_study() -> Study:
    """A simulated study whose pruner stopped some trials, with what its search stored."""
    study = simulate(make_world(0, 40), pruner("pareto"))
    report = pruning_report(study, rungs=RUNGS, n_steps=N_STEPS)
    return replace(study, attributes={PRUNING_ATTRIBUTE: report})


def test_a_study_with_stopped_trials_says_so_everywhere() -> None:
    study = pruned_study()
    n_pruned = len([item for item in study.trials if item.state is TrialState.PRUNED])
    summary = StudySummary(
        spec=study.spec,
        n_trials={state: sum(item.state is state for item in study.trials) for state in TrialState},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        last_activity_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    text = " ".join(shown(status_view(study, summary, "db"), 400).split())
    assert f"stopped {n_pruned} trials early" in text
    assert "after 10 of 90 steps, accuracy: " in text
    assert status_document(study, summary, "db")["pruning"] == study.attributes[PRUNING_ATTRIBUTE]
    table = shown(trials_table(study, study.trials, "Trials"), 200)
    at_rungs = table.count("PRUNED at 11 %") + table.count("PRUNED at 33 %")
    assert at_rungs == n_pruned > 5
    front = front_document(study)
    assert not {item["number"] for item in front["trials"]} & {
        item.number for item in study.trials if item.state is TrialState.PRUNED
    }
    documents = trials_document(study)["trials"]
    assert {item["state"] for item in documents if item["rung"] is not None} == {"PRUNED"}
    stopped = next(item for item in documents if item["rung"] is not None)
    assert stopped["rung"]["share"] == stopped["rung"]["step"] / 90
    report = render_report(study, "md")
    assert "Trials stopped early" in report
    assert "Trials stopped early" not in render_report(replace(study, attributes={}), "md")
