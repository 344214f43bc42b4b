"""What happens at each point of a learning curve: it is stored, and the pruner says whether the trial goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autopeft.exceptions import TrialConflictError
from autopeft.pruners import PRUNING_NOTE, Decision, Pruner
from autopeft.store import TrialStore
from autopeft.study import CurvePoint, Trial, TrialKind


class PointKeeper:
    """Stores the points of claimed trials, and stops those that the pruner does not let go on.

    Args:
        store: Where the study is.
        study: Its name.
        claimed: The trials, in the order of their jobs.
        worker: Who holds them.
        pruner: Of the study.
    """

    def __init__(self, store: TrialStore, study: str, claimed: Sequence[Trial], worker: str, pruner: Pruner) -> None:
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
        trials = self._store.load_study(self._study).trials
        (decision,) = self._pruner.decide(trials, [number])
        note: Any = trials[number].notes.get(PRUNING_NOTE)
        earlier: list[Mapping[str, Any]] = list(note["decisions"]) if note else []
        earlier = [item for item in earlier if item["step"] != point.step]
        self._store.set_note(self._study, number, PRUNING_NOTE, {"decisions": [*earlier, decision.to_dict()]})
        if decision.stop:
            self.stopped[index] = decision
        return decision.stop
