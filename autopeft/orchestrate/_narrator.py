"""Tells of trials that other processes run, from what the store shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autopeft.orchestrate._events import Progress
from autopeft.pruners import PRUNING_NOTE
from autopeft.store import StudyFollower
from autopeft.study import Study, Trial, TrialKind, TrialState, best_of, within_budget


class BestSoFar:
    """The best search or baseline trial within the budget, kept up to date at the cost of what has changed.

    What is COMPLETE never changes, so the best one is among the former best and the trials that ended since.
    """

    def __init__(self) -> None:
        self._best: Trial | None = None

    def update(self, study: Study, ended: Iterable[Trial]) -> Trial | None:
        """Take account of trials that ended; `autopeft.study.best_within_budget` of all trials seen so far.

        Args:
            study: Its spec matters, its trials do not.
            ended: Trials that were not there, or had not ended, at the last call.
        """
        asked = [item for item in ended if item.kind in (TrialKind.SEARCH, TrialKind.BASELINE)]
        if self._best is not None:
            asked.append(self._best)
        self._best = best_of(study, within_budget(study, asked))
        return self._best


class Narrator:
    """Tells a search's events to whoever watches it.

    Args:
        follower: Of the study.
        progress: Told about every trial.
    """

    def __init__(self, follower: StudyFollower, progress: Progress) -> None:
        self._follower = follower
        self._changes = follower.subscribe()
        self._progress = progress
        self._best = BestSoFar()
        self._seen: dict[int, TrialState] | None = None

    def look(self) -> bool:
        """Look at the study, and tell of what has changed since the last look.

        Returns:
            Whether a trial has ended.
        """
        study = self._follower.refresh()
        if self._seen is None:
            # What ended before the first look is no news; what is running then is.
            first = self._changes.take()
            self._seen = {item.number: item.state for item in first if item.state is not TrialState.RUNNING}
            self._best.update(study, first)
            self._tell(study, [item for item in first if item.state is TrialState.RUNNING])
        return self._tell(study, self._changes.take())

    def _tell(self, study: Study, changed: Iterable[Trial]) -> bool:
        seen = {} if self._seen is None else self._seen
        has_ended = False
        for trial in changed:
            before = seen.get(trial.number)
            if trial.state is before:
                continue
            seen[trial.number] = trial.state
            if trial.state is TrialState.WAITING:
                if before is TrialState.RUNNING:
                    self._progress.message(f"trial {trial.number} was given back; another worker begins it again.")
                continue
            if before is not TrialState.RUNNING:
                self._progress.trial_started(trial)
            has_ended |= trial.state.is_finished
            self._tell_end(study, trial)
        return has_ended

    def _tell_end(self, study: Study, trial: Trial) -> None:
        if trial.state is TrialState.COMPLETE:
            self._progress.trial_finished(trial, self._best.update(study, [trial]))
        elif trial.state is TrialState.PRUNED:
            self._progress.trial_pruned(trial, why_pruned(trial))
        elif trial.state is TrialState.FAILED:
            self._progress.trial_failed(trial)


def why_pruned(trial: Trial) -> str:
    """What the pruner said when it stopped a trial; empty if that is not known."""
    note: Any = trial.notes.get(PRUNING_NOTE)
    decisions = note.get("decisions") if isinstance(note, Mapping) else None
    return str(decisions[-1].get("why", "")) if decisions else ""
