"""The store in a database: SQLite on one machine, PostgreSQL for a cluster."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from autopeft.exceptions import StudyMismatchError
from autopeft.store import _messages as messages
from autopeft.store._additions import add_rows
from autopeft.store._base import StudyChanges, StudyMark, StudySummary
from autopeft.store._changes import read_changes
from autopeft.store._codec import (
    check_point,
    decode_spec,
    encode_spec,
    to_json,
)
from autopeft.store._models import AttributeRow, LeaseRow, StudyRow, TrialRow
from autopeft.store._rows import (
    failure_values,
    read_attributes,
    read_summaries,
    read_trials,
)
from autopeft.store._sql_completion import CompletionTables
from autopeft.store._statements import add_point, held, named
from autopeft.study import CurvePoint, Failure, Study, StudySpec, Trial, TrialDraft, TrialKind, TrialState


class SqlStore(CompletionTables):
    """Keeps everything in a database; the contract is `TrialStore`'s.

    An empty database gets the schema; one with an older schema is refused until `upgrade` was called.
    Leases on PostgreSQL are timed by the server's clock, so that the workers' clocks need not agree.

    Args:
        url: A plain path or ``sqlite:///FILE``, or ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``.
        clock: Gives the current time; None for the machine's (SQLite) or the server's (PostgreSQL).
        busy_timeout_s: Seconds to wait for other writers of an SQLite database, >= 0.
        create: Whether a database that is missing or empty gets the schema; else that is an error.

    Raises:
        NotFoundError: If there is no schema and none is to be created.
        StoreError: If the database cannot be used; the message says what to do.
    """

    def create_study(self, spec: StudySpec) -> Study:
        values = {"name": spec.name, "spec": encode_spec(spec)}
        with self._writing() as connection:
            try:
                connection.execute(insert(StudyRow).values(**values, created_at=self._now(connection)))
            except IntegrityError as error:
                raise messages.study_exists(spec.name, self.url) from error
        return self.load_study(spec.name)

    def ensure_study(self, spec: StudySpec) -> Study:
        with self._reading() as connection:
            found = connection.execute(select(StudyRow.id).where(StudyRow.name == spec.name)).first()
        if found is None:
            try:
                return self.create_study(spec)
            except StudyMismatchError:
                pass  # Another process created it in between.
        study = self.load_study(spec.name)
        differences = decode_spec(encode_spec(spec)).differences(study.spec)
        if differences:
            raise messages.study_mismatch(spec.name, differences)
        return study

    def load_study(self, name: str) -> Study:
        with self._reading() as connection:
            study_id = self._study_id(connection, name)
            return replace(self._outline(connection, study_id), trials=read_trials(connection, study_id))

    def load_outline(self, name: str) -> Study:
        with self._reading() as connection:
            study_id = self._study_id(connection, name)
            return self._outline(connection, study_id)

    def load_changes(self, study_name: str, mark: StudyMark | None, *, running: bool = False) -> StudyChanges:
        with self._reading() as connection:
            changes = read_changes(connection, study_name, mark, running=running)
            if changes is None:
                raise self._unknown_study(connection, study_name)
            if mark is None:
                outline = self._outline(connection, self._study_id(connection, study_name))
                changes = replace(changes, spec=outline.spec, attributes=outline.attributes)
            return changes

    def list_studies(self) -> list[StudySummary]:
        with self._reading() as connection:
            return read_summaries(connection)

    def set_attribute(self, study_name: str, key: str, value: Any) -> None:
        text = to_json(value, f"attribute {key!r}")
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name, lock=True)
            where = (AttributeRow.study_id == study_id, AttributeRow.key == key)
            if connection.execute(update(AttributeRow).where(*where).values(value=text)).rowcount == 0:
                connection.execute(insert(AttributeRow).values(study_id=study_id, key=key, value=text))

    def settle_attribute(self, study_name: str, key: str, value: Any) -> Any:
        text = to_json(value, f"attribute {key!r}")
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name, lock=True)
            where = (AttributeRow.study_id == study_id, AttributeRow.key == key)
            found = connection.execute(select(AttributeRow.value).where(*where)).scalar_one_or_none()
            if found is None:
                connection.execute(insert(AttributeRow).values(study_id=study_id, key=key, value=text))
            return json.loads(text if found is None else found)

    def set_note(self, study_name: str, number: int, key: str, value: Any) -> None:
        note = json.loads(to_json(value, f"note {key!r}"))
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name)
            statement = select(TrialRow.id, TrialRow.notes).where(
                TrialRow.study_id == study_id, TrialRow.number == number
            )
            row = connection.execute(statement.with_for_update(key_share=True)).first()
            if row is None:
                raise messages.trial_not_found(study_name, number, self._n_trials(connection, study_id))
            text = to_json({**json.loads(row.notes), key: note}, "notes")
            connection.execute(update(TrialRow).where(TrialRow.id == row.id).values(notes=text))

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
        messages.check_notes(len(drafts), len(notes))
        texts = [to_json(dict(item), "notes") for item in notes] or ["{}"] * len(drafts)
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name, lock=True)
            return add_rows(connection, study_name, study_id, drafts, texts, number=number, now=self._now(connection))

    def claim_trial(
        self,
        study_name: str,
        worker: str,
        *,
        lease_s: float,
        kinds: Collection[TrialKind] | None = None,
        numbers: Collection[int] | None = None,
    ) -> Trial | None:
        messages.check_claim(worker, lease_s)
        self._require_studies([study_name])
        found = self._claim(study_name, worker, self._times(lease_s), kinds=kinds, numbers=numbers)
        return found[0] if found else None

    def heartbeat(self, study_name: str, number: int, worker: str, lease_s: float) -> None:
        messages.check_claim(worker, lease_s)
        if not self._keep(study_name, number, worker, self._times(lease_s)):
            raise self._not_held(study_name, number, worker)

    def add_point(self, study_name: str, number: int, worker: str, point: CurvePoint) -> None:
        check_point(point)
        parameters = {
            **named(study_name, number, worker),
            "p_step": int(point.step),
            "p_epoch": float(point.epoch),
            "p_wall_time_s": float(point.wall_time_s),
            "p_metrics": to_json(dict(point.metrics), "metrics"),
            "p_n_examples": None if point.n_examples is None else int(point.n_examples),
        }
        added, _ = self._run(add_point(self._is_sqlite), parameters)
        if not added:
            raise self._not_held(study_name, number, worker)

    def fail_trial(self, study_name: str, number: int, worker: str, failure: Failure) -> Trial:
        with self._writing() as connection:
            mine = self._held(connection, study_name, number, worker)
            now = self._now(connection)
            self._end_lease(connection, mine.lease_id, "finished", now)
            values = {**failure_values(failure), "finished_at": now}
            connection.execute(update(TrialRow).where(TrialRow.id == mine.id).values(**values))
            return self._load_trial(connection, study_name, number)

    def continue_trial(self, study_name: str, number: int) -> Trial:
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name)
            found = connection.execute(
                update(TrialRow)
                .where(TrialRow.study_id == study_id, TrialRow.number == number)
                .where(TrialRow.state == TrialState.PRUNED.value)
                .values(state=TrialState.WAITING.value, attempts=0, started_at=None, finished_at=None)
            )
            trial = self._load_trial(connection, study_name, number)
            if found.rowcount == 0:
                raise messages.not_pruned(study_name, number, trial.state)
            return trial

    def release_trial(self, study_name: str, number: int, worker: str) -> None:
        with self._writing() as connection:
            mine = self._held(connection, study_name, number, worker)
            self._end_lease(connection, mine.lease_id, "released", self._now(connection))
            connection.execute(
                update(TrialRow)
                .where(TrialRow.id == mine.id)
                .values(state=TrialState.WAITING.value, attempts=TrialRow.attempts - 1, started_at=None)
            )

    def release_expired(
        self, study_name: str, *, max_attempts: int = 3, dead_workers: Collection[str] = ()
    ) -> list[int]:
        messages.check_max_attempts(max_attempts)
        ended = []
        with self._writing() as connection:
            study_id = self._study_id(connection, study_name)
            now = self._now(connection)
            statement = (
                select(TrialRow.id, TrialRow.number, TrialRow.attempts, LeaseRow.id.label("lease_id"), LeaseRow.worker)
                .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
                .where(TrialRow.study_id == study_id, LeaseRow.ended_at.is_(None))
                .where((LeaseRow.expires_at <= now) | LeaseRow.worker.in_(list(dead_workers)))
                .order_by(TrialRow.number)
            )
            # A trial that somebody is writing to at this moment is alive: it is passed over.
            locked = statement.with_for_update(skip_locked=True, of=[TrialRow, LeaseRow])
            for row in connection.execute(locked).all():
                self._end_lease(connection, row.lease_id, "lost", now)
                values: dict[str, Any] = {"state": TrialState.WAITING.value, "started_at": None}
                if row.attempts >= max_attempts:
                    values = {**failure_values(messages.lost_worker(row.worker, row.attempts)), "finished_at": now}
                connection.execute(update(TrialRow).where(TrialRow.id == row.id).values(**values))
                ended.append(row.number)
        return ended

    def running_workers(self, study_name: str) -> dict[int, str]:
        with self._reading() as connection:
            study_id = self._study_id(connection, study_name)
            statement = (
                select(TrialRow.number, LeaseRow.worker)
                .join(LeaseRow, LeaseRow.trial_id == TrialRow.id)
                .where(TrialRow.study_id == study_id, LeaseRow.ended_at.is_(None))
                .order_by(TrialRow.number)
            )
            return {row.number: row.worker for row in connection.execute(statement)}

    def _outline(self, connection: Connection, study_id: int) -> Study:
        text = connection.execute(select(StudyRow.spec).where(StudyRow.id == study_id)).scalar_one()
        return Study(spec=decode_spec(text), trials=(), attributes=read_attributes(connection, study_id))

    def _held(self, connection: Connection, study_name: str, number: int, worker: str) -> Row[Any]:
        """Lock the trial and make sure that the worker holds it."""
        mine = connection.execute(held(), named(study_name, number, worker)).first()
        if mine is None:
            raise self._not_held(study_name, number, worker)
        return mine

    @staticmethod
    def _end_lease(connection: Connection, lease_id: int, outcome: str, now: datetime) -> None:
        connection.execute(update(LeaseRow).where(LeaseRow.id == lease_id).values(ended_at=now, outcome=outcome))


def open_store(url: str | Path, *, busy_timeout_s: float = 30.0, create: bool = True) -> SqlStore:
    """Open the database at a path or URL; see `SqlStore`."""
    return SqlStore(url, busy_timeout_s=busy_timeout_s, create=create)
