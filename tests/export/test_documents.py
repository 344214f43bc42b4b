from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

import autopeft
from autopeft.configuration import Configuration
from autopeft.export import (
    front_document,
    report_document,
    show_document,
    status_counts,
    trial_document,
    trials_document,
)
from autopeft.objectives import to_maximization
from autopeft.study import Study, search_front
from tests.export.studies import STUDIES, TRACEBACK, failures_only, full_study

TRIAL_KEYS = {
    "number",
    "state",
    "kind",
    "label",
    "description",
    "values",
    "report_values",
    "metrics",
    "rung",
    "trainable_parameters",
    "fingerprint",
    "params",
    "configuration",
    "failure",
    "seed",
    "fidelity",
    "wall_time_s",
    "peak_memory_bytes",
    "reward_time_s",
    "examples_per_s",
    "tokens_per_s",
    "parent",
    "attempts",
    "worker",
    "created_at",
    "started_at",
    "finished_at",
}


@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_any_study_is_json_with_every_key(build: Callable[[], Study]) -> None:
    study = build()
    documents = [trials_document(study), front_document(study), report_document(study)]
    documents += [show_document(study, item) for item in study.trials[:1]]
    for document in documents:
        assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert len(documents[0]["trials"]) == len(study.trials)
    for trial in documents[0]["trials"]:
        assert set(trial) == TRIAL_KEYS


def test_a_trial_round_trips_through_its_json() -> None:
    study = full_study()
    for trial, data in zip(study.trials, trials_document(study)["trials"], strict=True):
        configuration = Configuration.from_dict(json.loads(json.dumps(data["configuration"])))
        assert configuration == trial.configuration
        assert configuration.fingerprint == data["fingerprint"]


def test_values_of_a_measured_trial() -> None:
    study = full_study()
    data = trial_document(study, study.trials[3])
    assert data["values"] == {"accuracy": 0.61, "trainable_parameters": 3000.0}
    assert data["report_values"]["accuracy"] == pytest.approx(0.608)
    assert data["metrics"] == {"accuracy": 0.61, "macro_f1": 0.59}
    assert data["kind"] == "baseline"
    assert data["label"] == "LoRA r=8 on q,v, lr 0.005"
    assert data["params"] is None
    assert data["wall_time_s"] == 12.5
    assert data["peak_memory_bytes"] == 3 * 2**30
    assert data["fidelity"] == {"train_examples": 100, "epochs": 2}
    assert data["started_at"] == "2026-11-21T10:01:00+00:00"


def test_a_failed_trial_has_its_failure_and_nulls() -> None:
    study = failures_only()
    data = trial_document(study, study.trials[0])
    assert data["state"] == "FAILED"
    assert data["failure"] == {"reason": "divergence", "message": "the loss became nan", "traceback": TRACEBACK}
    # The parameter count is exact without training; what training would have measured is null.
    assert data["values"] == {"accuracy": None, "trainable_parameters": 1000.0}
    assert data["report_values"] == {"accuracy": None, "trainable_parameters": None}
    assert data["wall_time_s"] is None
    assert data["metrics"] == {}


def test_front_document_is_the_front_by_brute_force() -> None:
    study = full_study()
    data = front_document(study)
    rows = [
        (item["number"], item["values"])
        for item in trials_document(study)["trials"]
        if item["kind"] == "search" and item["state"] == "COMPLETE"
    ]

    def beats(a: dict[str, float], b: dict[str, float]) -> bool:
        pair = [to_maximization([[value[name] for name in value]], study.spec.objectives)[0] for value in (a, b)]
        return bool((pair[0] >= pair[1]).all() and (pair[0] > pair[1]).any())

    expected = {number for number, value in rows if not any(beats(other, value) for _, other in rows)}
    assert {item["number"] for item in data["trials"]} == expected
    assert data["hypervolume"] == search_front(study).hypervolume
    assert set(data["reference_point"]) == {"accuracy", "trainable_parameters"}
    assert [item["label"] for item in data["baselines"]] == [
        item.draft.label for item in study.trials if item.kind.value == "baseline"
    ]
    assert data["recommended"] == study.attributes["summary"]["recommended"]
    assert data["best_baseline"] == 3
    assert data["knee"] in expected
    assert data["headline"] == study.attributes["summary"]["headline"]
    assert data["difference"]["low"] == 0.02
    assert data["confirmed"][1]["trial"] == 3
    assert data["is_final"]


def test_front_of_nothing_is_null_never_zero() -> None:
    data = front_document(failures_only())
    assert data["trials"] == data["baselines"] == data["confirmed"] == []
    for key in ("hypervolume", "reference_point", "recommended", "best_baseline", "knee", "difference"):
        assert data[key] is None
    assert not data["is_final"]


@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_report_is_the_front_and_the_trials_in_the_words_of_their_own_documents(build: Callable[[], Study]) -> None:
    study = build()
    data = report_document(study)
    front, trials = front_document(study), trials_document(study)
    assert data["front"] == front["trials"]
    assert data["trials"] == trials["trials"]
    assert {key: data[key] for key in front if key != "trials"} == {key: front[key] for key in front if key != "trials"}
    assert data["failures"] == [item for item in data["trials"] if item["state"] == "FAILED"]


def test_report_has_all_that_is_needed_to_repeat_the_study() -> None:
    study = full_study()
    facts = report_document(study)["reproducibility"]
    assert facts["command"] == study.attributes["command"]
    assert facts["spec"] == study.spec.to_dict()
    assert facts["environment"]["versions.torch"] == ["2.13.0"]
    assert facts["first_started_at"] == min(item.started_at for item in study.trials if item.started_at).isoformat()
    assert facts["last_finished_at"] == max(item.finished_at for item in study.trials if item.finished_at).isoformat()
    assert facts["autopeft_version"] == autopeft.__version__


def test_show_has_curve_measurements_and_environment() -> None:
    study = full_study()
    data = show_document(study, study.trials[0])["trial"]
    assert [point["step"] for point in data["curve"]] == [10, 20, 30, 40]
    assert data["curve"][0]["metrics"]["train_loss"] == 1.0
    assert data["measurements"][0]["environment"]["versions"]["torch"] == "2.13.0"
    assert data["measurements"][0]["split"] == "search"


def test_counts_have_every_kind_and_state() -> None:
    counts = status_counts(full_study())
    assert counts["search"] == {"WAITING": 0, "RUNNING": 0, "COMPLETE": 11, "PRUNED": 0, "FAILED": 1}
    assert counts["baseline"]["COMPLETE"] == 6
    assert counts["confirmation"]["COMPLETE"] == 4


def test_show_keeps_what_modules_counted_beside_the_metrics() -> None:
    study = full_study()
    trial = study.trials[0]
    metrics = {"accuracy": 0.5, "train_loss": 1.0, "layers.0.q.moe_lora.entropy": 1.2}
    point = replace(trial.curve[0], metrics=metrics)
    found = show_document(study, replace(trial, curve=(point,)))["trial"]["curve"]
    assert found[0]["metrics"] == {"accuracy": 0.5, "train_loss": 1.0}
    assert found[0]["statistics"] == {"layers.0.q.moe_lora.entropy": 1.2}
