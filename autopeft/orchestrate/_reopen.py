"""From a stored study back to what trains its trials: the same data, the same backbone, the same precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autopeft.backbones import Backbone, load_backbone
from autopeft.exceptions import StudyMismatchError, UsageError
from autopeft.orchestrate._search import select_device
from autopeft.study import Study, Trial
from autopeft.tasks import Task, reload_task
from autopeft.training import TrainingSettings, TrialRunner, select_precision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReopenedStudy:
    """A study whose trials can be trained again.

    Args:
        study: The study.
        task: Its data, loaded again and unchanged.
        runner: The inner loop over its backbone, in the precision of the trial asked for.
        exact_backbone: The same backbone in float32; the runner's own if that is float32.
    """

    study: Study
    task: Task
    runner: TrialRunner
    exact_backbone: Backbone


def reopen(
    study: Study,
    trial: Trial,
    *,
    cache_dir: Path,
    device: str = "auto",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> ReopenedStudy:
    """Load data and backbone of a study again, from what the store knows alone.

    Args:
        study: The study.
        trial: Which of its trials is to be trained again; decides the precision.
        cache_dir: Folder of the caches.
        device: Torch device, or ``"auto"``.
        allow_pickle: Load weights that are not safetensors.
        trust_remote_code: Run code that comes with the backbone.

    Raises:
        StudyMismatchError: If data or backbone are not there any more, or have changed since the study.
    """
    spec, environment = study.spec, _environment(study, trial)
    task = _task(study)
    place = select_device(device)
    precision = environment.get("precision")
    dtype: torch.dtype = getattr(torch, precision) if precision else select_precision(spec.training["precision"], place)
    options: dict[str, Any] = {
        "n_labels": task.n_labels,
        "device": place,
        "allow_pickle": allow_pickle,
        "trust_remote_code": trust_remote_code,
        "seed": spec.seed,
    }
    backbone = _backbone(study, environment, dtype=dtype, **options)
    exact = backbone
    if dtype != torch.float32:
        exact = _backbone(study, environment, dtype=torch.float32, **options)
    runner = TrialRunner(backbone, task, TrainingSettings(**spec.training), cache_dir=cache_dir)
    return ReopenedStudy(study=study, task=task, runner=runner, exact_backbone=exact)


def _environment(study: Study, trial: Trial) -> Mapping[str, Any]:
    """Where a trial was measured; any trial of the study knows as much of its backbone."""
    for item in (trial, *study.trials):
        for measurement in item.measurements:
            if measurement.environment:
                return measurement.environment
    return {}


def _task(study: Study) -> Task:
    try:
        return reload_task(study.spec.task)
    except UsageError as error:
        raise StudyMismatchError(f"study {study.spec.name} cannot be opened again: {error}") from error


def _backbone(study: Study, environment: Mapping[str, Any], **options: Any) -> Backbone:
    name, revision = backbone_address(study.spec.backbone)
    try:
        backbone = load_backbone(name, revision=revision, **options)
    except UsageError as error:
        raise StudyMismatchError(f"study {study.spec.name} cannot be opened again: {error}") from error
    expected = environment.get("backbone_hash")
    if expected is not None and backbone.content_hash != expected:
        raise StudyMismatchError(
            f"the backbone of study {study.spec.name} ({study.spec.backbone['source']}) has changed: its content hash "
            f"is {backbone.content_hash[:12]}, the study's is {expected[:12]}. Restore it, or start a new study."
        )
    return backbone


def backbone_address(settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name and revision under which a study's backbone is found again, from any folder and after any update.

    Args:
        settings: `StudySpec.backbone`.
    """
    name, source = str(settings["name"]), str(settings["source"])
    if Path(source).is_absolute():
        return source, None
    if source.startswith("hub ") and "@" in source:
        return name, source.rpartition("@")[2]
    return name, None
