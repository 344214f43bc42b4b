"""What is stored of a trial: each point of its curve, where the pruner says whether it goes on, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from autopeft.exceptions import TrialConflictError
from autopeft.pruners import PRUNING_NOTE, Decision, Pruner
from autopeft.store import StudyFollower, TrialStore
from autopeft.study import CurvePoint, Failure, Measurement, Trial, TrialKind, TrialState


class PointKeeper:
    """Stores the points of claimed trials, and stops those that the pruner does not let go on.

    Args:
        store: Where the study is.
        study: Its name.
        claimed: The trials, in the order of their jobs.
        worker: Who holds them.
        pruner: Of the study.
        follower: Of the study and its running trials, if the caller keeps one from run to run; it is used by this
            object's thread alone meanwhile.
    """

    def __init__(
        self,
        store: TrialStore,
        study: str,
        claimed: Sequence[Trial],
        worker: str,
        pruner: Pruner,
        *,
        follower: StudyFollower | None = None,
    ) -> None:
        self._follower = follower or StudyFollower(store, study, running=True)
        self._store = store
        self._study = study
        self._numbers = [trial.number for trial in claimed]
        self._is_search = [trial.kind is TrialKind.SEARCH for trial in claimed]
        # A trial that was continued has been let past the rungs up to where it had been stopped.
        self._passed = [
            max((item.rung.step for item in trial.measurements if item.rung), default=0) for trial in claimed
        ]
        self._worker = worker
        self._pruner = pruner
        #: What stopped a trial, by the index of its job.
        self.stopped: dict[int, Decision] = {}

    def on_point(self, index: int, point: CurvePoint) -> bool:
        """Store a point; True if the trial ends there, or belongs to another worker by now."""
        try:
            self._store.add_point(self._study, self._numbers[index], self._worker, point)
        except TrialConflictError:
            return True
        return self._ends(index, point)

    def on_resume(self, index: int, curve: Sequence[CurvePoint]) -> bool:
        """Store what a trial that goes on has behind it; True if the pruner would have it end at the last point.

        A worker that was lost may have been lost between a point and the decision about it.
        """
        try:
            for point in curve:
                self._store.add_point(self._study, self._numbers[index], self._worker, point)
        except TrialConflictError:
            return True
        return self._ends(index, curve[-1])

    def _ends(self, index: int, point: CurvePoint) -> bool:
        number = self._numbers[index]
        if not self._is_search[index] or point.step not in self._pruner.rungs or point.step <= self._passed[index]:
            return False
        trials = self._follower.refresh().trials
        (decision,) = self._pruner.decide(trials, [number])
        note: Any = trials[number].notes.get(PRUNING_NOTE)
        earlier: list[Mapping[str, Any]] = list(note["decisions"]) if note else []
        earlier = [item for item in earlier if item["step"] != point.step]
        self._store.set_note(self._study, number, PRUNING_NOTE, {"decisions": [*earlier, decision.to_dict()]})
        if decision.stop:
            self.stopped[index] = decision
        return decision.stop


class Ending(Protocol):
    """How a run ended: an `autopeft.training.Outcome`, or what a process without torch knows of one."""

    @property
    def measurements(self) -> tuple[Measurement, ...]: ...
    @property
    def failure(self) -> Failure | None: ...
    @property
    def is_stopped_early(self) -> bool: ...


def write_outcome(store: TrialStore, study: str, trial: Trial, worker: str, outcome: Ending) -> Trial:
    """Store how a trial ended.

    Args:
        store: Where the study is.
        study: Its name.
        trial: As it was claimed.
        worker: Who holds it.
        outcome: What came out.

    Returns:
        The trial as it is stored now.

    Raises:
        TrialConflictError: If the worker does not hold the trial any more.
    """
    if outcome.failure is not None:
        return store.fail_trial(study, trial.number, worker, outcome.failure)
    if outcome.is_stopped_early:
        # Continued and stopped where it had been before: what was measured there is known.
        known = {item.rung for item in trial.measurements}
        new = [item for item in outcome.measurements if item.rung not in known]
        return store.complete_trial(study, trial.number, worker, new, TrialState.PRUNED)
    return store.complete_trial(study, trial.number, worker, outcome.measurements)
