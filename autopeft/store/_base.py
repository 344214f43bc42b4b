"""The contract of every trial store.

**Pass by value.** What a store returns is a copy: changing it changes nothing in the store, and later writes never
change what was returned. JSON-ready mappings come back as JSON would return them (tuples as lists), floats bit for bit.

**Atomicity.** Every method is one transaction: it happens wholly or not at all, also when the process is killed in the
middle. A store instance may be shared between threads; several processes may work on one database.

**Life of a trial.** `add_trial` creates it WAITING. `claim_trial` makes it RUNNING under a lease. Its holder keeps
the lease alive by `heartbeat` and ends it by `complete_trial`, `fail_trial` or `release_trial`. A lease that expired,
or whose worker is known to be dead, is ended by `release_expired`: the trial is WAITING again, or FAILED after too many
attempts. An expired lease that nobody ended still belongs to its holder, so a laptop that slept loses nothing.

**Ownership.** A RUNNING trial is written by its lease's holder alone; everyone else gets `TrialConflictError`. A
finished trial never changes, apart from its notes, unless it is PRUNED and `continue_trial` makes it WAITING again:
what was measured stays and is added to. Nothing is ever deleted.

**Missing is missing.** A measurement at a run's end exists only for COMPLETE trials, one at a rung only for trials that
are or were PRUNED, a failure only for FAILED ones, and a metric that was not measured is absent; non-finite numbers are
refused with `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from autopeft.store._cluster import ClusterStore
from autopeft.study import CurvePoint, Failure, Measurement, Study, StudySpec, Trial, TrialDraft, TrialKind, TrialState

#: `Failure.reason` of a trial whose workers were lost once too often.
LOST_WORKER = "lost_worker"

#: Gives the current time, with time zone.
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """A study without its trials, for lists.

    Args:
        spec: What is searched.
        n_trials: Number of trials in each state; every state is present.
        created_at: When the study was created.
        last_activity_at: Last time that a trial was added, claimed, kept alive or finished; creation if there is none.
    """

    spec: StudySpec
    n_trials: Mapping[TrialState, int]
    created_at: datetime
    last_activity_at: datetime

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def n_trials_total(self) -> int:
        return sum(self.n_trials.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMark:
    """What somebody has seen of a study. Only the store that made it can read it.

    Args:
        n_trials: How many trials there were.
        last_claim: The last claim or change that was there.
        unfinished: The unfinished trials as they were, by number.
    """

    n_trials: int
    last_claim: int
    unfinished: Mapping[int, Trial]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyChanges:
    """What has changed in a study since a mark, as it was at one moment.

    Args:
        mark: For the next time.
        trials: Those that are new or have changed, by number; all of them if there was no mark.
        spec: Of the study; None if there was a mark, for it never changes.
        attributes: Of the study; None if there was a mark.
    """

    mark: StudyMark
    trials: tuple[Trial, ...]
    spec: StudySpec | None = None
    attributes: Mapping[str, Any] | None = None


@runtime_checkable
class TrialStore(ClusterStore, Protocol):
    """Keeps studies and their trials, and is the only owner of their state. The module states the guarantees."""

    @property
    def url(self) -> str:
        """Where the data are, fit to be shown: passwords are masked."""
        ...

    def close(self) -> None:
        """Give back connections; the store may still be used and then opens them anew."""
        ...

    def create_study(self, spec: StudySpec) -> Study:
        """Create an empty study.

        Raises:
            StudyMismatchError: If a study of that name exists, whatever its settings.
        """
        ...

    def ensure_study(self, spec: StudySpec) -> Study:
        """Load the study of that name, or create it.

        Raises:
            StudyMismatchError: If it exists with other settings; the message lists every difference.
        """
        ...

    def load_study(self, name: str) -> Study:
        """Load a study and all its trials, by number, as they were at one moment.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def load_outline(self, name: str) -> Study:
        """Load a study's spec and attributes, without its trials.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def load_changes(self, study_name: str, mark: StudyMark | None, *, running: bool = False) -> StudyChanges:
        """Load what has changed in a study since a mark; `StudyFollower` makes a study of it again.

        A trial has changed if its state has, or if it was claimed or continued since; new notes alone are no change.
        Notes and environments may be mappings that cannot be changed.

        Args:
            study_name: Study.
            mark: Of an earlier call to the same store; None for everything.
            running: Whether RUNNING trials are read also if their state has not changed, with the points of their
                learning curves.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def load_trial(self, study_name: str, number: int) -> Trial:
        """Load one trial.

        Raises:
            NotFoundError: If there is no such study or trial.
        """
        ...

    def list_studies(self) -> list[StudySummary]:
        """Summaries of all studies, oldest first."""
        ...

    def set_attribute(self, study_name: str, key: str, value: Any) -> None:
        """Set a study's attribute to a JSON-ready value, replacing the earlier one.

        Raises:
            NotFoundError: If there is no study of that name.
            ValueError: If the value is not JSON-ready.
        """
        ...

    def settle_attribute(self, study_name: str, key: str, value: Any) -> Any:
        """Set a study's attribute to a JSON-ready value unless it is set: of several processes, the first one decides.

        Returns:
            The value that is stored now.

        Raises:
            NotFoundError: If there is no study of that name.
            ValueError: If the value is not JSON-ready.
        """
        ...

    def set_note(self, study_name: str, number: int, key: str, value: Any) -> None:
        """Set a trial's note to a JSON-ready value, replacing the earlier one; allowed in every state, to everyone.

        Raises:
            NotFoundError: If there is no such study or trial.
            ValueError: If the value is not JSON-ready.
        """
        ...

    def add_trial(self, study_name: str, draft: TrialDraft, *, number: int | None = None) -> Trial:
        """Add a WAITING trial under the next number.

        Args:
            study_name: Study to add to.
            draft: What is asked for.
            number: The number it is meant to get; None for whichever is next.

        Raises:
            NotFoundError: If there is no such study, or no trial with the number `draft.parent`.
            TrialConflictError: If `number` is not the next one, or a trial of the same identity exists in any state.
        """
        ...

    def add_trials(
        self,
        study_name: str,
        drafts: Sequence[TrialDraft],
        *,
        number: int | None = None,
        notes: Sequence[Mapping[str, Any]] = (),
    ) -> list[Trial]:
        """Add several WAITING trials under the next numbers, all of them or none.

        Args:
            study_name: Study to add to.
            drafts: What is asked for.
            number: The number that the first is meant to get; None for whichever is next.
            notes: What each one is noted with from the start, JSON-ready; empty for nothing.

        Raises:
            NotFoundError: If there is no such study, or no trial with the number of a draft's `parent`.
            TrialConflictError: If `number` is not the next one, or a trial of one of the identities exists in any
                state, or two of them are the same.
            ValueError: If a note is not JSON-ready, or there are not as many as drafts.
        """
        ...

    def claim_trial(
        self,
        study_name: str,
        worker: str,
        *,
        lease_s: float,
        kinds: Collection[TrialKind] | None = None,
        numbers: Collection[int] | None = None,
    ) -> Trial | None:
        """Take the WAITING trial with the lowest number under a lease; its attempts grow by one.

        Args:
            study_name: Study to take from.
            worker: Who takes it.
            lease_s: Seconds until the lease expires unless it is kept alive, > 0.
            kinds: Kinds to choose from; None for all.
            numbers: Numbers to choose from; None for all.

        Returns:
            The trial, RUNNING; None if none is waiting. No two callers ever get the same one.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def heartbeat(self, study_name: str, number: int, worker: str, lease_s: float) -> None:
        """Extend the lease to `lease_s` seconds from now.

        Raises:
            NotFoundError: If there is no such study or trial.
            TrialConflictError: If the worker does not hold the trial any more.
        """
        ...

    def add_point(self, study_name: str, number: int, worker: str, point: CurvePoint) -> None:
        """Add a point to the learning curve of this claim, replacing the one at the same step.

        A trial's curve is that of its latest claim: one that starts anew starts an empty curve.

        Raises:
            NotFoundError: If there is no such study or trial.
            TrialConflictError: If the worker does not hold the trial any more.
            ValueError: If a number is not finite.
        """
        ...

    def complete_trial(
        self,
        study_name: str,
        number: int,
        worker: str,
        measurements: Sequence[Measurement],
        state: TrialState = TrialState.COMPLETE,
    ) -> Trial:
        """Finish a trial with its measurements and end the lease.

        Args:
            study_name: Study of the trial.
            number: Number of the trial.
            worker: Who holds it.
            measurements: Of its end if COMPLETE, at least one; of a rung if PRUNED. At most one per split, fidelity,
                seed and rung over the trial's life.
            state: COMPLETE, or PRUNED if it was stopped early.

        Raises:
            NotFoundError: If there is no such study or trial.
            TrialConflictError: If the worker does not hold the trial any more; nothing is stored.
            ValueError: If state or measurements break the rules above.
        """
        ...

    def complete_and_claim(
        self,
        study_name: str,
        number: int,
        worker: str,
        measurements: Sequence[Measurement],
        *,
        lease_s: float,
        studies: Collection[str] | None = None,
        kinds: Collection[TrialKind] | None = None,
        prefer: Collection[str] | None = None,
        refuse: Collection[str] = (),
        limit: int = 1,
    ) -> list[tuple[str, Trial]]:
        """`complete_trial`, then `claim_next`: what a worker asks for at the end of a trial, where it can in one go.

        Args:
            study_name: Study of the trial.
            number: Number of the trial.
            worker: Who holds it, and takes the next ones.
            measurements: Of its end, at least one.
            lease_s: See `claim_next`.
            studies: See `claim_next`.
            kinds: See `claim_next`.
            prefer: See `claim_next`.
            refuse: See `claim_next`.
            limit: See `claim_next`.

        Returns:
            See `claim_next`.

        Raises:
            NotFoundError: If there is no such study or trial, or one of `studies` does not exist.
            TrialConflictError: If the worker does not hold the trial any more; nothing is stored, and nothing taken.
            ValueError: If the measurements break the rules of `complete_trial`; nothing is taken.
        """
        ...

    def fail_trial(self, study_name: str, number: int, worker: str, failure: Failure) -> Trial:
        """Finish a trial without a result and end the lease.

        Raises:
            NotFoundError: If there is no such study or trial.
            TrialConflictError: If the worker does not hold the trial any more; nothing is stored.
        """
        ...

    def continue_trial(self, study_name: str, number: int) -> Trial:
        """Make a PRUNED trial WAITING again, with its measurements, and no attempts counted.

        Raises:
            NotFoundError: If there is no such study or trial.
            TrialConflictError: If it is not PRUNED; nothing changes.
        """
        ...

    def release_trial(self, study_name: str, number: int, worker: str) -> None:
        """Give a trial back unfinished: it is WAITING again, and the claim does not count as an attempt.

        Raises:
            NotFoundError: If there is no such study or trial.
            TrialConflictError: If the worker does not hold the trial any more.
        """
        ...

    def release_expired(
        self, study_name: str, *, max_attempts: int = 3, dead_workers: Collection[str] = ()
    ) -> list[int]:
        """End the leases that have expired or whose worker is dead.

        Args:
            study_name: Study to look through.
            max_attempts: A trial claimed that often becomes FAILED with reason `LOST_WORKER`, others WAITING; >= 1.
            dead_workers: Workers known to be gone, whose leases end at once.

        Returns:
            Numbers of the trials whose lease ended, ascending.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...

    def running_workers(self, study_name: str) -> dict[int, str]:
        """Number and holder of every RUNNING trial, by number: what a caller needs to tell which workers are dead.

        Raises:
            NotFoundError: If there is no study of that name.
        """
        ...
