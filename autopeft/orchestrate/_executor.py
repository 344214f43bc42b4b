"""Where trials run. The database is the truth: an executor claims trials, keeps the lease alive and writes results."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from autopeft.configuration import placement_counts
from autopeft.exceptions import StoreError, TrialConflictError
from autopeft.modules import MODULES
from autopeft.orchestrate._events import Progress
from autopeft.orchestrate._narrator import BestSoFar
from autopeft.orchestrate._points import PointKeeper, write_outcome
from autopeft.orchestrate._worker_id import worker_id
from autopeft.pruners import Decision, NoPruner, Pruner
from autopeft.store import LOCAL_EXECUTOR, StudyFollower, Subscription, TrialStore
from autopeft.study import REPORT_SPLIT, SEARCH_SPLIT, Trial, TrialKind, TrialState
from autopeft.training import Job, Outcome, TrialRunner

LEASE_S = 60.0
#: Trial note: trainable parameters of each placement alone, in the configuration's order.
PLACEMENT_NOTE = "placement_parameters"


class Executor(Protocol):
    """Runs the WAITING trials of a study."""

    @property
    def name(self) -> str:
        """``"local"``, ``"workers"`` or ``"ray"``: as whose driver the search is known."""

    @property
    def slots(self) -> int:
        """How many trials it works on at once; the search keeps as many WAITING."""

    def advance(self, study: str, kinds: Collection[TrialKind]) -> bool:
        """Bring at least one trial of these kinds to an end.

        Returns:
            False if there was nothing to run.
        """

    def give_back(self, study: str) -> None:
        """Put back every trial it holds: the search was interrupted."""

    def follow(self, study: str, follower: StudyFollower) -> None:
        """Look at a study through this follower, so that what has changed is read once for all who want to know."""


class LocalExecutor:
    """Runs trials in this process, with the backbone and the data resident.

    Args:
        store: Where trials are claimed and results written.
        runner: The inner loop.
        progress: Told about every trial.
        cohort: Configurations trained as one batch.
        pruner: Of the study; None stops nothing.
    """

    name = LOCAL_EXECUTOR

    def __init__(
        self,
        store: TrialStore,
        runner: TrialRunner,
        progress: Progress,
        *,
        cohort: int = 1,
        pruner: Pruner | None = None,
    ) -> None:
        self._store = store
        self._runner = runner
        self._progress = progress
        self._cohort = cohort
        self._pruner = pruner or NoPruner()
        self._follower: tuple[str, StudyFollower] | None = None
        self._results: tuple[Subscription, BestSoFar] | None = None
        self.worker = worker_id()

    @property
    def slots(self) -> int:
        return self._cohort

    def advance(self, study: str, kinds: Collection[TrialKind]) -> bool:
        """Claim up to a cohort of trials of equal fidelity, train them as one batch, write what came out."""
        claimed = self._claim(study, kinds)
        if not claimed:
            return False
        for trial in claimed:
            self._note_parameters(study, trial)
            self._progress.trial_started(trial)
        follower = self._followed(study)
        points = PointKeeper(self._store, study, claimed, self.worker, self._pruner, follower=follower)
        with self._heartbeat(study, claimed):
            outcomes = self._runner.run(
                [job_of(trial) for trial in claimed], on_point=points.on_point, on_resume=points.on_resume
            )
        for index, (trial, outcome) in enumerate(zip(claimed, outcomes, strict=True)):
            self._write(study, trial, outcome, points.stopped.get(index))
        return True

    def give_back(self, study: str) -> None:
        """Put back every trial this executor holds, whatever moment it was interrupted at."""
        for number, worker in self._store.running_workers(study).items():
            if worker == self.worker:
                # A lease that was lost meanwhile is somebody else's to end.
                with suppress(TrialConflictError):
                    self._store.release_trial(study, number, self.worker)

    def _claim(self, study: str, kinds: Collection[TrialKind]) -> list[Trial]:
        claimed = self._store.claim_next(self.worker, lease_s=LEASE_S, studies=[study], kinds=kinds, limit=self._cohort)
        return [trial for _, trial in claimed]

    def follow(self, study: str, follower: StudyFollower) -> None:
        self._follower, self._results = (study, follower), None

    def _followed(self, study: str) -> StudyFollower:
        # Kept from batch to batch, so that a long study is read once.
        if self._follower is None or self._follower[0] != study:
            follower = StudyFollower(self._store, study, running=bool(self._pruner.rungs))
            self.follow(study, follower)
            return follower
        return self._follower[1]

    def _note_parameters(self, study: str, trial: Trial) -> None:
        """Note how many parameters each placement trains, for those who show a trial without knowing the modules."""
        if PLACEMENT_NOTE not in trial.notes:
            counts = placement_counts(trial.configuration, self._runner.backbone.shapes, MODULES)
            self._store.set_note(study, trial.number, PLACEMENT_NOTE, counts)

    def _write(self, study: str, trial: Trial, outcome: Outcome, stopped: Decision | None) -> None:
        """Store how a trial ended.

        Args:
            study: Its study.
            trial: As it was claimed.
            outcome: What came out.
            stopped: What the pruner said, if it stopped it.
        """
        try:
            written = write_outcome(self._store, study, trial, self.worker, outcome)
        except TrialConflictError:
            self._progress.message(f"trial {trial.number}: another worker took it over; this result is not kept.")
            return
        if written.state is TrialState.FAILED:
            self._progress.trial_failed(written)
        elif written.state is TrialState.PRUNED:
            self._progress.trial_pruned(written, "" if stopped is None else stopped.why)
        else:
            follower = self._followed(study)
            if self._results is None:
                self._results = follower.subscribe(), BestSoFar()
            changes, best = self._results
            loaded = follower.refresh()
            self._progress.trial_finished(written, best.update(loaded, changes.take()))

    @contextmanager
    def _heartbeat(self, study: str, claimed: Sequence[Trial]) -> Iterator[None]:
        """Keep the leases alive from a second thread while the trials train."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(LEASE_S / 4):
                for trial in claimed:
                    try:
                        self._store.heartbeat(study, trial.number, self.worker, LEASE_S)
                    except (TrialConflictError, StoreError):
                        continue

        thread = threading.Thread(target=beat, name="autopeft-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def job_of(trial: Trial) -> Job:
    """What a trial asks the inner loop for."""
    splits = (SEARCH_SPLIT, REPORT_SPLIT) if trial.kind is TrialKind.CONFIRMATION else (SEARCH_SPLIT,)
    draft = trial.draft
    return Job(
        configuration=draft.configuration,
        seed=draft.seed,
        fidelity=draft.fidelity,
        splits=splits,
        measures_rungs=trial.kind is TrialKind.SEARCH,
    )
