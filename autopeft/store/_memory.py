"""A store in the memory of one process: for tests and throw-away searches."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from autopeft.exceptions import NotFoundError, TrialConflictError
from autopeft.store._base import Clock, StudyChanges, StudyMark, StudySummary, utc_now
from autopeft.store._cluster import LOCAL_EXECUTOR, WorkerFacts
from autopeft.store._codec import (
    check_completion,
    check_point,
    copy_trial,
    decode_curve,
    decode_spec,
    encode_curve,
    encode_spec,
    normalized_draft,
    normalized_measurement,
    to_json,
)
from autopeft.store._memory_cluster import MemoryCluster
from autopeft.store._messages import (
    check_claim,
    check_limit,
    check_max_attempts,
    check_notes,
    identity_taken,
    lost_worker,
    not_held,
    not_pruned,
    number_taken,
    study_exists,
    study_mismatch,
    study_not_found,
    trial_not_found,
)
from autopeft.store._turns import Turn, by_turn
from autopeft.study import CurvePoint, Failure, Measurement, Study, StudySpec, Trial, TrialDraft, TrialKind, TrialState


@dataclass(slots=True)
class _Lease:
    worker: str
    heartbeat_at: datetime
    expires_at: datetime


@dataclass(slots=True)
class _StudyRecord:
    spec: str
    created_at: datetime
    trials: list[Trial] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    leases: dict[int, _Lease] = field(default_factory=dict)
    #: How many changes there were to any trial, and which one was each trial's last.
    n_changes: int = 0
    changes: list[int] = field(default_factory=list)
    last_heartbeat_at: datetime | None = None


class MemoryStore(MemoryCluster):
    """Keeps everything in memory; the contract is `TrialStore`'s, apart from surviving the process.

    Args:
        clock: Gives the current time; UTC by default.
    """

    def __init__(self, *, clock: Clock = utc_now) -> None:
        super().__init__(clock)
        self._studies: dict[str, _StudyRecord] = {}

    @property
    def url(self) -> str:
        return "memory:"

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def create_study(self, spec: StudySpec) -> Study:
        with self._lock:
            if spec.name in self._studies:
                raise study_exists(spec.name, self.url)
            self._studies[spec.name] = _StudyRecord(spec=encode_spec(spec), created_at=self._clock())
            return self.load_study(spec.name)

    def ensure_study(self, spec: StudySpec) -> Study:
        with self._lock:
            if spec.name not in self._studies:
                return self.create_study(spec)
            study = self.load_study(spec.name)
        differences = decode_spec(encode_spec(spec)).differences(study.spec)
        if differences:
            raise study_mismatch(spec.name, differences)
        return study

    def load_study(self, name: str) -> Study:
        with self._lock:
            trials = tuple(copy_trial(trial) for trial in self._record(name).trials)
            return replace(self.load_outline(name), trials=trials)

    def load_outline(self, name: str) -> Study:
        with self._lock:
            record = self._record(name)
            attributes = {key: json.loads(text) for key, text in record.attributes.items()}
            return Study(spec=decode_spec(record.spec), trials=(), attributes=attributes)

    def load_changes(self, study_name: str, mark: StudyMark | None, *, running: bool = False) -> StudyChanges:
        with self._lock:
            record = self._record(study_name)
            new = StudyMark(n_trials=len(record.trials), last_claim=record.n_changes, unfinished={})
            if mark is None:
                study = self.load_study(study_name)
                return StudyChanges(mark=new, trials=study.trials, spec=study.spec, attributes=study.attributes)
            # Every change counts here, points of learning curves included: there is no need to ask for running trials.
            changed = [number for number, change in enumerate(record.changes) if change > mark.last_claim]
            return StudyChanges(mark=new, trials=tuple(copy_trial(record.trials[number]) for number in changed))

    def load_trial(self, study_name: str, number: int) -> Trial:
        with self._lock:
            return copy_trial(self._trial(study_name, number))

    def list_studies(self) -> list[StudySummary]:
        with self._lock:
            return [_summary(record) for record in self._studies.values()]

    def set_attribute(self, study_name: str, key: str, value: Any) -> None:
        text = to_json(value, f"attribute {key!r}")
        with self._lock:
            self._record(study_name).attributes[key] = text

    def settle_attribute(self, study_name: str, key: str, value: Any) -> Any:
        text = to_json(value, f"attribute {key!r}")
        with self._lock:
            return json.loads(self._record(study_name).attributes.setdefault(key, text))

    def set_note(self, study_name: str, number: int, key: str, value: Any) -> None:
        text = to_json(value, f"note {key!r}")
        with self._lock:
            trial = self._trial(study_name, number)
            self._put(study_name, replace(trial, notes={**trial.notes, key: json.loads(text)}))

    def add_trial(self, study_name: str, draft: TrialDraft, *, number: int | None = None) -> Trial:
        return self.add_trials(study_name, [draft], number=number)[0]

    def add_trials(
        self,
        study_name: str,
        drafts: Sequence[TrialDraft],
        *,
        number: int | None = None,
        notes: Sequence[Mapping[str, Any]] = (),
    ) -> list[Trial]:
        check_notes(len(drafts), len(notes))
        drafts = [normalized_draft(draft) for draft in drafts]
        kept = [json.loads(to_json(dict(item), "notes")) for item in notes] or [{} for _ in drafts]
        with self._lock:
            record = self._record(study_name)
            n_trials = len(record.trials)
            if number is not None and number != n_trials:
                raise number_taken(study_name, number, n_trials)
            known = {item.draft.identity: item.number for item in record.trials}
            for offset, draft in enumerate(drafts):
                if draft.parent is not None and not 0 <= draft.parent < n_trials + offset:
                    raise trial_not_found(study_name, draft.parent, n_trials)
                if draft.identity in known:
                    raise identity_taken(study_name, known[draft.identity])
                known[draft.identity] = n_trials + offset
            now = self._clock()
            added = []
            for draft, note in zip(drafts, kept, strict=True):
                trial = Trial(
                    number=len(record.trials), draft=draft, state=TrialState.WAITING, created_at=now, notes=note
                )
                record.trials.append(trial)
                record.changes.append(0)
                added.append(self._put(study_name, trial))
            return added

    def claim_trial(
        self,
        study_name: str,
        worker: str,
        *,
        lease_s: float,
        kinds: Collection[TrialKind] | None = None,
        numbers: Collection[int] | None = None,
    ) -> Trial | None:
        check_claim(worker, lease_s)
        with self._lock:
            found = self._claim(study_name, worker, lease_s, kinds, numbers, limit=1)
            return found[0] if found else None

    def _claim(
        self,
        study_name: str,
        worker: str,
        lease_s: float,
        kinds: Collection[TrialKind] | None,
        numbers: Collection[int] | None,
        *,
        limit: int,
    ) -> list[Trial]:
        """Take the WAITING trials with the lowest numbers that have the kind and fidelity of the first."""
        record = self._record(study_name)
        found: list[Trial] = []
        for trial in record.trials:
            if (
                trial.state is TrialState.WAITING
                and (kinds is None or trial.kind in kinds)
                and (numbers is None or trial.number in numbers)
                and (not found or _batch_key(trial) == _batch_key(found[0]))
            ):
                found.append(trial)
                if len(found) == limit:
                    break
        now = self._clock()
        claimed = []
        for trial in found:
            record.leases[trial.number] = _Lease(worker, now, now + timedelta(seconds=lease_s))
            running = replace(
                trial, state=TrialState.RUNNING, attempts=trial.attempts + 1, worker=worker, started_at=now, curve=()
            )
            claimed.append(self._put(study_name, running))
        return claimed

    def claim_next(
        self,
        worker: str,
        *,
        lease_s: float,
        studies: Collection[str] | None = None,
        kinds: Collection[TrialKind] | None = None,
        prefer: Collection[str] | None = None,
        refuse: Collection[str] = (),
        limit: int = 1,
    ) -> list[tuple[str, Trial]]:
        check_claim(worker, lease_s)
        check_limit(limit)
        with self._lock:
            turns = []
            for name in self._studies if studies is None else studies:
                record = self._record(name)
                driver = self.driver(name)
                is_asking = studies is not None or (driver is not None and driver.executor != LOCAL_EXECUTOR)
                if is_asking and name not in refuse:
                    turns.append(
                        Turn(
                            name=name,
                            n_running=len(record.leases),
                            weight=1.0 if driver is None else driver.weight,
                            idle_since=self._served_at(name) or record.created_at,
                        )
                    )
            for turn in by_turn(turns, prefer=prefer or (), now=self._clock()):
                found = self._claim(turn.name, worker, lease_s, kinds, None, limit=limit)
                if found:
                    self._note_service(turn.name)
                    return [(turn.name, trial) for trial in found]
            return []

    def announce_worker(self, worker: WorkerFacts, lease_s: float) -> frozenset[int]:
        lost = set()
        with self._lock:
            super().announce_worker(worker, lease_s)
            for number in worker.trials:
                try:
                    self.heartbeat(worker.study or "", number, worker.id, lease_s)
                except (NotFoundError, TrialConflictError):
                    lost.add(number)
        return frozenset(lost)

    def heartbeat(self, study_name: str, number: int, worker: str, lease_s: float) -> None:
        check_claim(worker, lease_s)
        with self._lock:
            self._held(study_name, number, worker)
            record = self._record(study_name)
            now = self._clock()
            record.leases[number] = _Lease(worker, now, now + timedelta(seconds=lease_s))
            record.last_heartbeat_at = now

    def add_point(self, study_name: str, number: int, worker: str, point: CurvePoint) -> None:
        check_point(point)
        (point,) = decode_curve(encode_curve([point]))
        with self._lock:
            trial = self._held(study_name, number, worker)
            by_step = {item.step: item for item in (*trial.curve, point)}
            self._put(study_name, replace(trial, curve=tuple(by_step[step] for step in sorted(by_step))))

    def complete_trial(
        self,
        study_name: str,
        number: int,
        worker: str,
        measurements: Sequence[Measurement],
        state: TrialState = TrialState.COMPLETE,
    ) -> Trial:
        check_completion(state, measurements)
        kept = tuple(normalized_measurement(item) for item in measurements)
        with self._lock:
            trial = self._held(study_name, number, worker)
            check_completion(state, kept, trial.measurements)
            self._record(study_name).leases.pop(number)
            kept = (*trial.measurements, *kept)
            return self._put(study_name, replace(trial, state=state, measurements=kept, finished_at=self._clock()))

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
        check_claim(worker, lease_s)
        check_limit(limit)
        with self._lock:
            for name in studies or ():
                self._record(name)
            self.complete_trial(study_name, number, worker, measurements)
            return self.claim_next(
                worker, lease_s=lease_s, studies=studies, kinds=kinds, prefer=prefer, refuse=refuse, limit=limit
            )

    def fail_trial(self, study_name: str, number: int, worker: str, failure: Failure) -> Trial:
        with self._lock:
            trial = self._held(study_name, number, worker)
            self._record(study_name).leases.pop(number)
            return self._put(
                study_name,
                replace(trial, state=TrialState.FAILED, failure=failure, finished_at=self._clock()),
            )

    def continue_trial(self, study_name: str, number: int) -> Trial:
        with self._lock:
            trial = self._trial(study_name, number)
            if trial.state is not TrialState.PRUNED:
                raise not_pruned(study_name, number, trial.state)
            return self._put(
                study_name,
                replace(trial, state=TrialState.WAITING, attempts=0, started_at=None, finished_at=None),
            )

    def release_trial(self, study_name: str, number: int, worker: str) -> None:
        with self._lock:
            trial = self._held(study_name, number, worker)
            self._record(study_name).leases.pop(number)
            self._put(
                study_name,
                replace(trial, state=TrialState.WAITING, attempts=trial.attempts - 1, started_at=None),
            )

    def release_expired(
        self, study_name: str, *, max_attempts: int = 3, dead_workers: Collection[str] = ()
    ) -> list[int]:
        check_max_attempts(max_attempts)
        with self._lock:
            record = self._record(study_name)
            now = self._clock()
            ended = sorted(
                number
                for number, lease in record.leases.items()
                if lease.expires_at <= now or lease.worker in dead_workers
            )
            for number in ended:
                trial = record.trials[number]
                worker = record.leases.pop(number).worker
                if trial.attempts >= max_attempts:
                    failure = lost_worker(worker, trial.attempts)
                    trial = replace(trial, state=TrialState.FAILED, failure=failure, finished_at=now)
                else:
                    trial = replace(trial, state=TrialState.WAITING, started_at=None)
                self._put(study_name, trial)
            return ended

    def running_workers(self, study_name: str) -> dict[int, str]:
        with self._lock:
            leases = self._record(study_name).leases
            return {number: leases[number].worker for number in sorted(leases)}

    def _check_study(self, name: str) -> None:
        self._record(name)

    def _study_names(self) -> list[str]:
        return list(self._studies)

    def _record(self, name: str) -> _StudyRecord:
        if name not in self._studies:
            raise study_not_found(name, self._studies, self.url)
        return self._studies[name]

    def _trial(self, study_name: str, number: int) -> Trial:
        trials = self._record(study_name).trials
        if not 0 <= number < len(trials):
            raise trial_not_found(study_name, number, len(trials))
        return trials[number]

    def _held(self, study_name: str, number: int, worker: str) -> Trial:
        trial = self._trial(study_name, number)
        lease = self._record(study_name).leases.get(number)
        if lease is None or lease.worker != worker:
            raise not_held(study_name, number, worker, trial.state, None if lease is None else lease.worker)
        return trial

    def _put(self, study_name: str, trial: Trial) -> Trial:
        record = self._studies[study_name]
        record.trials[trial.number] = trial
        record.n_changes += 1
        record.changes[trial.number] = record.n_changes
        return copy_trial(trial)


def _batch_key(trial: Trial) -> tuple[object, ...]:
    return (trial.kind, trial.draft.fidelity)


def _summary(record: _StudyRecord) -> StudySummary:
    states = [trial.state for trial in record.trials]
    moments = [
        moment
        for trial in record.trials
        for moment in (trial.created_at, trial.started_at, trial.finished_at)
        if moment is not None
    ]
    if record.last_heartbeat_at is not None:
        moments.append(record.last_heartbeat_at)
    return StudySummary(
        spec=decode_spec(record.spec),
        n_trials={state: states.count(state) for state in TrialState},
        created_at=record.created_at,
        last_activity_at=max(moments, default=record.created_at),
    )
