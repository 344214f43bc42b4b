"""From a stored study to the inner loop that trains its trials, on whatever machine a worker runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from autopeft.backbones import load_backbone
from autopeft.configuration import Configuration
from autopeft.exceptions import StudyMismatchError, UsageError
from autopeft.modules import MODULES
from autopeft.orchestrate._baselines import baselines
from autopeft.orchestrate._portable import SETTINGS, settings_from_dict
from autopeft.orchestrate._reopen import backbone_address
from autopeft.orchestrate._rewards import reward_settings
from autopeft.orchestrate._search import select_device
from autopeft.orchestrate._settings import SearchSettings
from autopeft.rewards import RewardPanel, find_rewards
from autopeft.study import Study
from autopeft.tasks import Task, reload_task
from autopeft.training import CheckpointFolder, TrainingSettings, TrialRunner, select_precision


def rebuild_runner(
    study: Study, *, cache_dir: Path, device: str = "auto", allow_code: bool = False, cohort: int | None = None
) -> tuple[TrialRunner, int]:
    """Load data, backbone and rewards of a study as its driver did, from what the store knows alone.

    Args:
        study: The study; its trials do not matter.
        cache_dir: Folder for tokens, hidden states and checkpoints.
        device: Torch device, or ``"auto"``.
        allow_code: Whether code that the study names may be run: reward functions of the user's, code that comes with
            the backbone, pickled weights.
        cohort: Configurations trained as one batch; None takes the study's, or measures it.

    Returns:
        The inner loop, and how many configurations it trains as one batch.

    Raises:
        UsageError: If something is missing or differs here; the message says what.
    """
    spec = study.spec
    settings = settings_from_dict({"task": str(spec.task["name"]), **(study.attributes.get(SETTINGS) or {})})
    _check_allowed(study, settings, allow_code=allow_code)
    place = select_device(device)
    task = reload_task(spec.task)
    name, revision = backbone_address(spec.backbone)
    backbone = load_backbone(
        name,
        n_labels=task.n_labels,
        dtype=_precision(study, place),
        device=place,
        allow_pickle=settings.allow_pickle,
        trust_remote_code=settings.trust_remote_code,
        revision=revision,
        seed=spec.seed,
    )
    expected = study.attributes.get("backbone_hash")
    if expected not in (None, backbone.content_hash):
        raise StudyMismatchError(
            f"the weights of backbone {name} are others here: content hash {backbone.content_hash[:12]}, the study "
            f"was begun with {str(expected)[:12]}"
        )
    runner = TrialRunner(
        backbone,
        task,
        TrainingSettings(**spec.training),
        cache_dir=cache_dir,
        rewards=_rewards(study, settings, task),
        checkpoints=CheckpointFolder(cache_dir / "checkpoints"),
    )
    size = cohort or settings.cohort or runner.cohort_size(_costly(study, runner))
    return runner, size


def _costly(study: Study, runner: TrialRunner) -> Configuration:
    """A configuration on all layers: the uniform LoRA baseline, else any."""
    found = list(baselines(runner.backbone.shapes, MODULES, study.spec.budget, memory_bytes=0))
    chosen = next((item for item in found if item.configuration.module_types == ("lora",)), found[0])
    return chosen.configuration


def _precision(study: Study, place: str) -> torch.dtype:
    return select_precision(study.attributes.get("precision") or study.spec.training["precision"], place)


def names_code(study: Study) -> str | None:
    """What code of the user's a study would run, in words; None if none."""
    settings = study.attributes.get(SETTINGS) or {}
    for item in study.spec.rewards.values():
        if ":" in str(item["reference"]):
            return f"the reward function {item['reference']}"
    if settings.get("trust_remote_code"):
        return "code that comes with the backbone"
    return "pickled weights" if settings.get("allow_pickle") else None


def _check_allowed(study: Study, settings: SearchSettings, *, allow_code: bool) -> None:
    code = names_code(study)
    if code is not None and not allow_code:
        raise UsageError(
            f"it needs {code}, and this worker runs no code that a study names; start it with --allow-code"
        )


def _rewards(study: Study, settings: SearchSettings, task: Task) -> RewardPanel | None:
    """The rewards that the study was begun with; their code and options must be the same here."""
    wanted = study.spec.rewards
    if not wanted:
        return None
    stored: Any = study.attributes.get(SETTINGS) or {}
    folder = Path(stored.get("folder") or ".")
    with contextlib.chdir(folder) if folder.is_dir() else contextlib.nullcontext():
        found = find_rewards(
            [str(item["reference"]) for item in wanted.values()], settings.reward_options, taken=task.metrics
        )
    here = reward_settings(found, task)
    different = [name for name in wanted if here.get(name, {}).get("settings") != wanted[name]["settings"]]
    if different:
        raise StudyMismatchError(
            f"the rewards {', '.join(different)} are others here than those the study was begun with"
        )
    return RewardPanel(tuple(found.values()))
