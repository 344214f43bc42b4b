"""What a search tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autopeft.samplers import EarlierStudy
from autopeft.study import StudySpec, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a search is about to do, before it does it.

    Args:
        spec: The study.
        task_description: The task and its splits in words.
        n_parameters_active: Parameters of the search space once bound to the backbone.
        n_trials: Search trials the study should have in the end.
        n_baselines: Baseline runs.
        n_confirmations: Most confirmation runs there can be.
        n_done: Trials of all kinds that are already finished.
        seconds_per_trial: Measured by a probe, for a configuration on all layers; None if not probed.
        estimated_time_s: Upper estimate for what is left, from the probe; None if not probed.
        export_notes: For each family of the space, how its configurations can be exported.
        store_url: Where the study is stored, password masked.
        resume_command: What to type to go on after an interruption.
        score_sources: Scores of sites that are computed before the first trial; empty if the space follows none, or
            they are stored.
        score_time_s: About how long that takes, part of the estimate above; None if not probed.
        rewards: What is measured of each trained candidate beside the task's metrics, with what it costs in words.
        reward_time_s: Measured on an untrained candidate, per split; part of the estimate above; None if not probed.
        reward_problem: Why a reward could not be measured on it; None if all could.
        warm_start: Earlier studies that the search learns from.
        rungs: Steps of a search trial at which the study's pruner decides; empty if nothing is stopped early.
        n_steps: Steps of a whole search trial; None if not worked out.
    """

    spec: StudySpec
    task_description: str
    n_parameters_active: int
    n_trials: int
    n_baselines: int
    n_confirmations: int
    n_done: int
    seconds_per_trial: float | None
    estimated_time_s: float | None
    export_notes: tuple[str, ...]
    store_url: str
    resume_command: str
    score_sources: tuple[str, ...] = ()
    score_time_s: float | None = None
    rewards: tuple[tuple[str, str], ...] = ()
    reward_time_s: float | None = None
    reward_problem: str | None = None
    warm_start: tuple[EarlierStudy, ...] = ()
    rungs: tuple[int, ...] = ()
    n_steps: int | None = None


class Progress(Protocol):
    """Receives a search's events, in order, from the thread that runs it."""

    def plan(self, plan: Plan) -> None:
        """The plan, once, before the first trial."""

    def trial_started(self, trial: Trial) -> None:
        """A trial is being trained by this process."""

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        """A trial is complete; `best` is the best search or baseline trial within the budget so far."""

    def trial_pruned(self, trial: Trial, why: str) -> None:
        """A trial was stopped at a rung; the sentence says why, empty if that is not known."""

    def trial_failed(self, trial: Trial) -> None:
        """A trial failed; the search goes on."""

    def message(self, text: str) -> None:
        """Anything else worth a line."""


class SilentProgress:
    """Says nothing."""

    def plan(self, plan: Plan) -> None:
        """Ignore the plan."""

    def trial_started(self, trial: Trial) -> None:
        """Ignore the trial."""

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        """Ignore the trial."""

    def trial_pruned(self, trial: Trial, why: str) -> None:
        """Ignore the trial."""

    def trial_failed(self, trial: Trial) -> None:
        """Ignore the trial."""

    def message(self, text: str) -> None:
        """Ignore the text."""
