"""A search's events as log records, one JSON object a line: for programs that watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autopeft.cli._progress import SearchProgress
from autopeft.study import Trial

if TYPE_CHECKING:
    from autopeft.orchestrate import Plan

_logger = logging.getLogger("autopeft.search")


class LogProgress(SearchProgress):
    """Says the same sentences as `SearchProgress`, each as a record that knows its event, study and trial.

    Args:
        is_quiet: Log nothing.
        before_trial: See `SearchProgress`.
    """

    def __init__(self, *, is_quiet: bool = False, before_trial: Callable[[], None] = lambda: None) -> None:
        super().__init__(is_quiet=is_quiet, is_live=False, before_trial=before_trial)
        self._study: str | None = None
        self._facts: dict[str, Any] = {"event": "message"}

    def plan(self, plan: Plan) -> None:
        """Log the plan, a line of it a record."""
        self._study = plan.spec.name
        facts = {"n_trials": plan.n_trials, "n_done": plan.n_done, "estimated_time_s": plan.estimated_time_s}
        with self._about("plan", **facts):
            super().plan(plan)

    def trial_started(self, trial: Trial) -> None:
        """Log which trial begins."""
        with self._about("trial_started", **_facts(trial)):
            super().trial_started(trial)

    def trial_finished(self, trial: Trial, best: Trial | None) -> None:
        """Log its result."""
        measurement = trial.measurement()
        measured = (
            {} if measurement is None else {"metrics": dict(measurement.metrics), "costs": dict(measurement.costs)}
        )
        with self._about("trial_finished", best=None if best is None else best.number, **measured, **_facts(trial)):
            super().trial_finished(trial, best)

    def trial_pruned(self, trial: Trial, why: str) -> None:
        """Log where it was stopped."""
        with self._about("trial_pruned", why=why, **_facts(trial)):
            super().trial_pruned(trial, why)

    def trial_failed(self, trial: Trial) -> None:
        """Log why it failed."""
        reason = None if trial.failure is None else trial.failure.reason
        with self._about("trial_failed", reason=reason, **_facts(trial)):
            super().trial_failed(trial)

    def _say(self, text: str) -> None:
        if not self._is_quiet and text:
            _logger.info("%s", text, extra={"study": self._study, **self._facts})

    @contextmanager
    def _about(self, event: str, **facts: Any) -> Iterator[None]:
        """What every record has that is logged meanwhile."""
        before = self._facts
        self._facts = {"event": event, **facts}
        try:
            yield
        finally:
            self._facts = before


def _facts(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "kind": trial.kind.value,
        "state": trial.state.value,
        "trainable_parameters": trial.draft.trainable_parameters,
        "worker": trial.worker,
    }
