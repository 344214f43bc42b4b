from __future__ import annotations

import json
from typing import Any

import pytest

from autopeft.cli._log import LogFormat, warnings_shown
from autopeft.cli._log_progress import LogProgress
from autopeft.cli._progress import SearchProgress
from tests.cli.test_search import make_plan
from tests.export.studies import full_study


def tell_all(progress: SearchProgress) -> None:
    study = full_study()
    done = study.trials[0]
    broken = next(item for item in study.trials if item.failure is not None)
    progress.plan(make_plan())
    progress.trial_started(done)
    progress.trial_finished(done, done)
    progress.trial_failed(broken)
    progress.trial_pruned(done, "it cannot reach the front")
    progress.message("Confirming the front")


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_event_is_a_record_with_study_and_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_shown(LogFormat.JSON), LogProgress() as progress:
        tell_all(progress)
    found = records(capsys)
    name = make_plan().spec.name
    assert {item["study"] for item in found} == {name}
    assert list(dict.fromkeys(item["event"] for item in found)) == [
        "plan",
        "trial_started",
        "trial_finished",
        "trial_failed",
        "trial_pruned",
        "message",
    ]
    finished = next(item for item in found if item["event"] == "trial_finished")
    trial = full_study().trials[0]
    assert (finished["trial"], finished["kind"], finished["state"]) == (0, trial.kind.value, "COMPLETE")
    assert finished["metrics"]["accuracy"] == trial.value("accuracy")
    assert finished["worker"] == trial.worker
    assert next(item for item in found if item["event"] == "trial_failed")["reason"] == "divergence"
    assert "trial" not in found[-1]


def test_it_says_what_people_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchProgress(is_live=False) as progress:
        tell_all(progress)
    plain = [line for line in capsys.readouterr().err.splitlines() if line]
    with warnings_shown(LogFormat.JSON), LogProgress() as progress:
        tell_all(progress)
    assert [item["message"] for item in records(capsys)] == plain


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_shown(LogFormat.JSON), LogProgress(is_quiet=True) as progress:
        tell_all(progress)
    assert records(capsys) == []


def test_an_interruption_reaches_the_search() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with LogProgress(before_trial=stop) as progress, pytest.raises(KeyboardInterrupt):
        progress.trial_started(full_study().trials[0])
