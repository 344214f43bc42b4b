"""Watching a search: a live bar on a terminal, one line per event anywhere else; always on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from autopeft.cli._output import message_console
from autopeft.export import (
    display_name,
    format_count,
    format_duration,
    format_score,
    format_share,
    format_value,
    printable,
)
from autopeft.study import StudySpec, Trial, TrialKind, TrialState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from autopeft.orchestrate import Plan


class SearchProgress:
    """Receives a search's events (see `autopeft.orchestrate.Progress`) and shows them.

    A context manager: the live bar is taken down at the end, whatever ends the search.

    Args:
        console: Where events are shown; None for stderr.
        is_quiet: Show nothing.
        is_live: Whether to show a live bar; None for wherever the console is a terminal and this is no CI run.
        before_trial: Called before each trial; what it raises ends the search.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        is_quiet: bool = False,
        is_live: bool | None = None,
        before_trial: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_trial = before_trial
        self._console = console or message_console()
        self._is_quiet = is_quiet
        on_terminal = self._console.is_terminal and not os.environ.get("CI")
        self._is_live = not is_quiet and (on_terminal if is_live is None else is_live)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._spec: StudySpec | None = None
        self._n_total = 0
        self._n_done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def plan(self, plan: Plan) -> None:
        """Show the plan and start the bar."""
        self._spec = plan.spec
        self._n_total = plan.n_trials + plan.n_baselines + plan.n_confirmations
        self._n_done = plan.n_done
        for line in plan_lines(plan):
            self._say(line)
        if self._is_live:
            self._start_bar()

    def trial_started(self, trial: Trial) -> None:
        """Name the trial that is being trained."""
        self._before_trial()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=printable(_name(trial)))
        else:
            self._say(f"{_name(trial)} started: {display_name(trial)}")

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        """Show the result beside the best so far."""
        metric = self._metric(trial)
        measurement = trial.measurement()
        wall_time = None if measurement is None else measurement.costs.get("wall_time_s")
        words = [f"{metric} {format_score(trial.value(metric))}".strip()]
        secondary = () if self._spec is None else self._spec.secondary
        words += [f"{item.name} {format_value(trial.value(item.name), item.unit)}" for item in secondary]
        words.append(f"{format_count(trial.draft.trainable_parameters)} parameters")
        if wall_time is not None:
            words.append(format_duration(wall_time))
        if best is not None:
            words.append(f"best {format_score(best.value(metric))} (trial {best.number})")
        self._advance(trial)
        self._say(f"{_name(trial)}: {', '.join(words)}{self._count()}")

    def trial_pruned(self, trial: Trial, why: str) -> None:
        """Show where it was stopped, and why; the search goes on."""
        metric, rung = self._metric(trial), trial.rung
        where = "" if rung is None else f" after {rung.step} of {rung.n_steps} steps"
        reason = f": {why}" if why else ""
        self._advance(trial)
        self._say(
            f"{_name(trial)} stopped early{where}, {metric} {format_score(trial.value(metric))}{reason}{self._count()}"
        )

    def trial_failed(self, trial: Trial) -> None:
        """Show why; the search goes on."""
        reason = "" if trial.failure is None else f" ({trial.failure.reason}): {trial.failure.message}"
        self._advance(trial)
        self._say(f"{_name(trial)} failed{reason}{self._count()}")

    def message(self, text: str) -> None:
        """Show a line."""
        self._say(text)

    def _say(self, text: str) -> None:
        if not self._is_quiet:
            console = self._console if self._bar is None else self._bar.console
            console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def _advance(self, trial: Trial) -> None:
        # One that was stopped and continued has been counted.
        n_stops = sum(item.rung is not None for item in trial.measurements)
        self._n_done += n_stops == (trial.state is TrialState.PRUNED)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._n_done)

    def _count(self) -> str:
        # The bar counts by itself.
        return "" if self._bar is not None or not self._n_total else f" [{self._n_done}/{self._n_total}]"

    def _metric(self, trial: Trial) -> str:
        if self._spec is not None:
            return self._spec.objectives[0].name
        measurement = trial.measurement()
        return "" if measurement is None else next(iter(measurement.metrics), "")

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("search", total=self._n_total, completed=self._n_done)
        self._bar.start()


def plan_lines(plan: Plan) -> list[str]:
    """A plan in words, a line per fact; also what `autopeft plan` prints."""
    spec = plan.spec
    share = format_share(spec.budget, spec.backbone.get("parameters"))
    runs = f"{plan.n_trials} search trials, {plan.n_baselines} baselines, up to {plan.n_confirmations} confirmations"
    examples = format_count(spec.fidelity.train_examples)
    lines = [
        f"Study      {spec.name}",
        f"Task       {spec.task.get('name', '')}: {plan.task_description}",
        f"Backbone   {spec.backbone.get('name', '')}, {format_count(spec.backbone.get('parameters'))} parameters",
        f"Budget     {spec.budget_text}: {format_count(spec.budget)} trainable parameters ({share}) without the head",
        f"Space      {spec.space.get('name', '')}, {plan.n_parameters_active} parameters; sampler {spec.sampler}",
        f"Training   {examples} examples, {spec.fidelity.epochs} epochs per trial{_confirmed_at(spec)}",
        f"Runs       {runs}; {plan.n_done} done",
    ]
    if plan.rungs:
        steps = " and ".join(str(step) for step in plan.rungs)
        lines.append(
            f"Rungs      after {steps} of {plan.n_steps} steps, where pruner {spec.pruner} may stop search trials early"
        )
    if plan.score_sources:
        took = "" if plan.score_time_s is None else f", about {format_duration(plan.score_time_s)}"
        lines.append(f"Scores     {', '.join(plan.score_sources)}: computed once before the first trial{took}")
    if plan.rewards:
        took = (
            "" if plan.reward_time_s is None else f": about {format_duration(plan.reward_time_s)} per trial (measured)"
        )
        lines.append(f"Rewards    {', '.join(name for name, _ in plan.rewards)}{took}")
        lines += [f"           {name}: {cost}" for name, cost in plan.rewards if cost]
    if plan.reward_problem is not None:
        lines.append(f"           an untrained model cannot be measured: {plan.reward_problem}")
    for i, earlier in enumerate(plan.warm_start):
        lines.append(f"{'Warm start' if i == 0 else '':<11}{earlier.describe()}")
    if plan.seconds_per_trial is not None:
        left = format_duration(plan.estimated_time_s)
        lines.append(
            f"Time       at most about {left}, at {format_duration(plan.seconds_per_trial)} per trial (measured)"
        )
    lines += [f"Export     {note}" for note in plan.export_notes]
    lines += [f"Database   {plan.store_url}", f"Resume     {plan.resume_command}"]
    return lines


def plan_document(plan: Plan) -> dict[str, Any]:
    """What a search is about to do."""
    return {
        "study": plan.spec.name,
        "spec": plan.spec.to_dict(),
        "task_description": plan.task_description,
        "n_parameters_active": plan.n_parameters_active,
        "n_trials": plan.n_trials,
        "n_baselines": plan.n_baselines,
        "n_confirmations": plan.n_confirmations,
        "n_done": plan.n_done,
        "pruner": plan.spec.pruner,
        "rungs": list(plan.rungs),
        "n_steps": plan.n_steps,
        "score_sources": list(plan.score_sources),
        "score_time_s": plan.score_time_s,
        "rewards": [{"name": name, "cost": cost} for name, cost in plan.rewards],
        "reward_time_s": plan.reward_time_s,
        "reward_problem": plan.reward_problem,
        "warm_start": [
            {"study": item.name, "task": item.task, "backbone": item.backbone, "n_trials": len(item.trials)}
            for item in plan.warm_start
        ],
        "seconds_per_trial": plan.seconds_per_trial,
        "estimated_time_s": plan.estimated_time_s,
        "export_notes": list(plan.export_notes),
        "database": plan.store_url,
        "resume_command": plan.resume_command,
    }


def _confirmed_at(spec: StudySpec) -> str:
    """How much confirmations are trained, where that is more than a trial."""
    full = spec.confirm_fidelity
    if full is None:
        return ""
    return f"; confirmations {format_count(full.train_examples)} examples, {full.epochs} epochs"


def _name(trial: Trial) -> str:
    kind = "" if trial.kind is TrialKind.SEARCH else f" ({trial.kind.value})"
    return f"trial {trial.number}{kind}"
