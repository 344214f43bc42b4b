"""From settings to a study: resolve names, check the budget, fix everything that defines the search."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopeft.backbones import BackboneDescription, describe_backbone
from autopeft.configuration import BoundSpace, SearchSpace, load_search_space, parse_budget
from autopeft.modules import MODULES
from autopeft.objectives import Objective
from autopeft.orchestrate._constraints import resolve_constraints
from autopeft.orchestrate._fidelity import resolve_fidelity
from autopeft.orchestrate._rewards import resolve_rewards, reward_settings
from autopeft.orchestrate._settings import SearchSettings, parse_share
from autopeft.rewards import RewardPanel
from autopeft.samplers import require_sampler
from autopeft.study import Fidelity, StudySpec
from autopeft.tasks import Task, load_task
from autopeft.training import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSearch:
    """Everything resolved, nothing trained and no weights loaded.

    Args:
        settings: What the user asked for.
        spec: The study they define.
        task: Its data.
        backbone: The backbone, without weights.
        space: The search space bound to backbone and budget.
        training: Settings of the inner loop.
        rewards: What is measured of every trained candidate beside the task's metrics; None for nothing.
    """

    settings: SearchSettings
    spec: StudySpec
    task: Task
    backbone: BackboneDescription
    space: BoundSpace
    training: TrainingSettings
    rewards: RewardPanel | None = None


def prepare(settings: SearchSettings) -> PreparedSearch:
    """Resolve settings.

    Raises:
        UsageError: If a name is unknown or a value impossible; the message says which and what to do.
    """
    require_sampler(settings.sampler)
    search_space = load_search_space(settings.space, MODULES)
    backbone = describe_backbone(
        settings.backbone,
        allow_pickle=settings.allow_pickle,
        trust_remote_code=settings.trust_remote_code,
        revision=settings.revision,
    )
    budget = parse_budget(settings.budget, backbone.shapes.parameters)
    space = BoundSpace(space=search_space, shapes=backbone.shapes, module_types=MODULES, budget=budget)
    space.check_budget()
    task = load_task(
        settings.task,
        data_dir=settings.data_dir,
        text_columns=settings.text_columns or None,
        label_column=settings.label_column,
        kind=settings.kind,
        train_fraction=settings.train_fraction,
        seed=settings.seed,
    )
    objectives, found = resolve_rewards(settings, search_space.objectives, task)
    rewards = RewardPanel(tuple(found.values())) if found else None
    constraints = resolve_constraints(settings.constraints, task, space, () if rewards is None else rewards.names)
    fidelity = resolve_fidelity(settings, task, 0 if rewards is None else rewards.reserve(len(task.train.targets)))
    training = TrainingSettings(
        batch_size=settings.batch_size,
        max_tokens=settings.max_tokens,
        precision=settings.precision,
        rungs=fidelity.rungs,
        rung_examples=fidelity.rung_examples,
    )
    defining = {
        **_defining(settings, task, backbone, search_space, budget, training),
        **({"rewards": reward_settings(found, task)} if found else {}),
        **({"pruner": fidelity.pruner} if fidelity.pruner != "none" else {}),
    }
    limits = {"constraints": [item.to_dict() for item in constraints]} if constraints else {}
    spec = StudySpec(
        name=settings.study or _default_name(settings, defining | limits, fidelity.search, objectives),
        budget_text=settings.budget,
        objectives=objectives,
        constraints=constraints,
        fidelity=fidelity.search,
        confirm_fidelity=fidelity.confirm,
        **defining,
    )
    return PreparedSearch(
        settings=settings, spec=spec, task=task, backbone=backbone, space=space, training=training, rewards=rewards
    )


def _defining(
    settings: SearchSettings,
    task: Task,
    backbone: BackboneDescription,
    search_space: SearchSpace,
    budget: int,
    training: TrainingSettings,
) -> dict[str, Any]:
    """What tells one study from another, by the fields of `StudySpec`."""
    return {
        "task": task.settings(),
        "backbone": {
            "name": backbone.name,
            "source": backbone.source,
            "revision": settings.revision,
            "architecture": backbone.architecture,
            "parameters": backbone.shapes.parameters,
            "n_layers": backbone.shapes.n_layers,
        },
        "space": search_space.to_dict(),
        "budget": budget,
        "sampler": settings.sampler,
        "training": training.to_dict(),
        "seed": settings.seed,
    }


def _default_name(
    settings: SearchSettings, defining: dict[str, Any], fidelity: Fidelity, objectives: Sequence[Objective]
) -> str:
    """A readable name, with a short hash of what defines the study: the same command finds its study again.

    The task's content hash and that of the user's code stay out, so that changed data or rewards are noticed instead of
    starting another study.
    """
    task = {key: value for key, value in defining["task"].items() if key != "content_hash"}
    if "rewards" in defining:
        known = [(item["reference"], {**item["settings"], "code": None}) for item in defining["rewards"].values()]
        defining = {**defining, "rewards": known}
    identity = {
        **defining,
        "task": task,
        "fidelity": fidelity.to_dict(),
        "objectives": [item.name for item in objectives],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:6]
    words = (Path(settings.task).stem if Path(settings.task).suffix else settings.task, Path(settings.backbone).name)
    readable = "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)
    budget = re.sub(r"[^0-9a-z.]+", "", settings.budget.lower().replace("%", "pct"))
    return f"{readable}-{budget}-{digest}"


def resume_command(settings: SearchSettings, extra: tuple[str, ...] = ()) -> str:
    """The command that goes on with this search: every setting that is not the default, as a flag."""
    default = SearchSettings(task=settings.task)
    words = ["autopeft", "search", "--task", settings.task]
    for name, flag in _FLAGS.items():
        value = getattr(settings, name)
        if value == getattr(default, name) and name != "budget":
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif isinstance(value, tuple):
            for item in value:
                words += [flag, str(item)]
        elif isinstance(value, Mapping):
            for reward, options in value.items():
                for key, item in options.items():
                    words += [flag, f"{reward}.{key}={item}"]
        elif name == "train_fraction":
            share = f"{100 * value:.15g}%"
            words += [flag, share if parse_share(share) == value else repr(value)]
        else:
            words += [flag, f"{value:.15g}" if isinstance(value, float) else str(value)]
    return shlex.join([*words, *extra])


_FLAGS = {
    "budget": "--budget",
    "backbone": "--backbone",
    "space": "--space",
    "sampler": "--sampler",
    "objectives": "--objective",
    "constraints": "--constraint",
    "record": "--record",
    "reward_options": "--reward-option",
    "trials": "--trials",
    "time_s": "--time",
    "seeds": "--seeds",
    "confirm_top": "--confirm-top",
    "baselines": "--baselines",
    "seed": "--seed",
    "study": "--study",
    "warm_start": "--warm-start",
    "data_dir": "--data-dir",
    "text_columns": "--text-column",
    "label_column": "--label-column",
    "kind": "--kind",
    "train_fraction": "--train-fraction",
    "train_examples": "--train-examples",
    "epochs": "--epochs",
    "fidelity": "--fidelity",
    "pruner": "--pruner",
    "batch_size": "--batch-size",
    "max_tokens": "--max-tokens",
    "precision": "--precision",
    "device": "--device",
    "cohort": "--cohort",
    "allow_pickle": "--allow-pickle",
    "trust_remote_code": "--trust-remote-code",
    "revision": "--revision",
    "executor": "--executor",
    "address": "--address",
    "workers": "--workers",
    "worker_cpus": "--worker-cpus",
    "worker_gpus": "--worker-gpus",
    "memory_limit_bytes": "--memory-limit",
    "trial_timeout_s": "--trial-timeout",
}
