"""Rewards in a search: which are measured, which of them are optimised, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.backbones import missing_language_head, no_language_head
from autopeft.configuration import Configuration
from autopeft.exceptions import RewardError, UsageError
from autopeft.objectives import COSTS, QUALITY, Objective, resolve_objectives
from autopeft.orchestrate._settings import SearchSettings
from autopeft.rewards import Reward, RewardPanel, check_reward, find_rewards, objective_of
from autopeft.study import Fidelity
from autopeft.tasks import Task
from autopeft.training import TrialRunner


def resolve_rewards(
    settings: SearchSettings, space_objectives: Sequence[str], task: Task
) -> tuple[tuple[Objective, ...], dict[str, Reward]]:
    """What is optimised and what is measured for it.

    Code of the user's is imported here, and only where an objective, ``--record`` or the space's file names it.

    Args:
        settings: What the user asked for.
        space_objectives: `SearchSpace.objectives`.
        task: Its metrics come first among the objectives: the first is what the recommendation is chosen by.

    Returns:
        The objectives; and every reward by the name it was asked for by, recorded ones after the objectives'.

    Raises:
        UsageError: If a name is unknown, a reward is not defined for the task, or no metric of the task is among the
            objectives.
    """
    names = settings.objectives or tuple(space_objectives) or (task.primary_metric, "trainable_parameters")
    ordinary = {*task.metrics, *COSTS, QUALITY}
    recorded = [name for name in settings.record if name not in ordinary]
    rewards = find_rewards(
        [name for name in (*names, *recorded) if name not in ordinary], settings.reward_options, taken=task.metrics
    )
    for item in rewards.values():
        check_reward(item, task)
        if item.needs_language_head:
            _check_language_head(item.name, settings)
    found = resolve_objectives(names, task.metrics, {name: objective_of(item, task) for name, item in rewards.items()})
    if not any(item.name in task.metrics for item in found):
        raise UsageError(
            f"--objective names only costs and rewards ({', '.join(names)}), but one metric of task {task.name} is "
            f"needed: {', '.join(task.metrics)}."
        )
    return tuple(sorted(found, key=lambda item: item.name not in task.metrics)), rewards


def _check_language_head(name: str, settings: SearchSettings) -> None:
    """Refuse a backbone whose checkpoint lacks the language-model head that a reward reads.

    Raises:
        UsageError: Names what is missing.
    """
    missing = missing_language_head(
        settings.backbone,
        allow_pickle=settings.allow_pickle,
        trust_remote_code=settings.trust_remote_code,
        revision=settings.revision,
    )
    if missing:
        raise UsageError(f"reward {name} cannot be measured: {no_language_head(settings.backbone, missing)}")


def reward_settings(rewards: Mapping[str, Reward], task: Task) -> dict[str, Any]:
    """What a study's spec says of its rewards: by name, how each is found again and what its values depend on."""
    return {
        item.name: {
            "reference": name,
            "direction": item.direction(task).value,
            "unit": item.unit,
            "settings": item.settings(),
        }
        for name, item in rewards.items()
    }


def probe_rewards(
    runner: TrialRunner, rewards: RewardPanel | None, configuration: Configuration, fidelity: Fidelity
) -> tuple[float | None, str | None]:
    """Measure the rewards once on an untrained candidate, after what all candidates share has been computed.

    Args:
        runner: Backbone and data.
        rewards: What to measure; None for nothing.
        configuration: Of the candidate.
        fidelity: Of the study.

    Returns:
        Seconds per split, None if there is nothing to measure or it failed; and why it failed, None if it did not.
    """
    if rewards is None:
        return None, None
    candidate = runner.untrained(configuration, fidelity)
    try:
        rewards.prepare(candidate)
        start = time.perf_counter()
        rewards.measure(candidate)
    except RewardError as error:
        return None, str(error)
    return time.perf_counter() - start, None
