"""Searches that were handed to a service: which wait, which run, who asked for them.

A submission has its study's name: submitting the same study again changes the submission, as the same command on the
command line resumes its study. A service takes one under its own name and is heard of from then on; what a service held
that is gone, another one takes over.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from autopeft.exceptions import NotFoundError, SubmissionConflictError
from autopeft.store._codec import to_json
from autopeft.store._models import SubmissionRow
from autopeft.store._sql_core import SqlCore
from autopeft.store._submission import ACTIVE, OwnerHistory, QueueEntry, Submission, SubmissionState, turn_order

#: Tells these locks of the server from others, such as the schema's.
_OWNER_LOCK = 0x6F776E72
_ACTIVE_VALUES = [item.value for item in ACTIVE]


class Submissions(SqlCore):
    """The queue of a service, in the database of its studies; every method is one transaction. See `SqlStore`."""

    def submit(self, study: str, owner: str, settings: Mapping[str, Any], *, max_queued: int = 1000) -> Submission:
        """Queue a study's search; one that has ended is queued again, with these settings.

        Args:
            study: Name of the study.
            owner: Who asks; one study is one owner's.
            settings: What is asked for, JSON-ready.
            max_queued: Most submissions of one owner that may wait, >= 1.

        Returns:
            The submission; unchanged if the same is queued or at work already.

        Raises:
            SubmissionConflictError: If the study is another owner's, is at work with other settings, or too many wait.
        """
        text = to_json(dict(settings), "settings")
        with self._writing() as connection:
            now = self._now(connection)
            row = self._row(connection, study, lock=True)
            if row is not None and row.owner != owner:
                raise SubmissionConflictError(
                    f"study {study!r} was submitted by {row.owner}; choose another name for yours with --study."
                )
            if row is not None and SubmissionState(row.state).is_active:
                if row.settings != text or row.state == SubmissionState.STOPPING.value:
                    raise SubmissionConflictError(
                        f"study {study!r} is {row.state}; wait for it, or stop it first, then submit it again."
                    )
                return _submission(row)
            if row is None or row.state != SubmissionState.QUEUED.value:
                self._lock_owner(connection, owner)
                self._check_queue(connection, owner, max_queued)
            values = {
                "settings": text,
                "state": SubmissionState.QUEUED.value,
                "attempts": 0,
                "message": None,
                "process": None,
                "finished_at": None,
            }
            if row is None:
                values |= {"study": study, "owner": owner, "created_at": now, "queued_at": now}
                try:
                    connection.execute(insert(SubmissionRow).values(**values))
                except IntegrityError as error:
                    raise SubmissionConflictError(
                        f"study {study!r} is being submitted by somebody else at this moment; try again."
                    ) from error
            else:
                queued_at = row.queued_at if row.state == SubmissionState.QUEUED.value else now
                statement = update(SubmissionRow).where(SubmissionRow.id == row.id)
                connection.execute(statement.values(**values, queued_at=queued_at))
            return _submission(self._required(connection, study))

    def load(self, study: str) -> Submission:
        """One submission.

        Raises:
            NotFoundError: If that study was not submitted.
        """
        with self._reading() as connection:
            return _submission(self._required(connection, study))

    def find(
        self,
        *,
        states: Collection[SubmissionState] | None = None,
        owner: str | None = None,
        limit: int = 1000,
        offset: int = 0,
    ) -> list[Submission]:
        """Submissions, latest first.

        Args:
            states: Only those in one of these; None for all.
            owner: Only this one's; None for everybody's.
            limit: Most to give.
            offset: How many to pass over.
        """
        statement: Select[Any] = select(SubmissionRow.__table__)
        if states is not None:
            statement = statement.where(SubmissionRow.state.in_([item.value for item in states]))
        if owner is not None:
            statement = statement.where(SubmissionRow.owner == owner)
        statement = statement.order_by(SubmissionRow.queued_at.desc(), SubmissionRow.id.desc())
        with self._reading() as connection:
            return [_submission(row) for row in connection.execute(statement.limit(limit).offset(offset))]

    def counts(self) -> dict[SubmissionState, int]:
        """Number of submissions in each state; every state is present."""
        statement = select(SubmissionRow.state, func.count()).group_by(SubmissionRow.state)
        with self._reading() as connection:
            found = dict(connection.execute(statement).all())
        return {state: found.get(state.value, 0) for state in SubmissionState}

    def queue(self) -> list[str]:
        """Names of the studies that wait, in the order in which their turn comes."""
        with self._reading() as connection:
            return [entry.study for entry in self._turns(connection)]

    def start_next(self, service: str) -> Submission | None:
        """Take the submission whose turn it is; it is RUNNING from then on.

        Args:
            service: Who takes it.

        Returns:
            The submission; None if none waits. No two callers ever get the same one.
        """
        with self._writing() as connection:
            for entry in self._turns(connection):
                now = self._now(connection)
                changed = connection.execute(
                    update(SubmissionRow)
                    .where(SubmissionRow.study == entry.study, SubmissionRow.state == SubmissionState.QUEUED.value)
                    .values(
                        state=SubmissionState.RUNNING.value,
                        service=service,
                        process=None,
                        started_at=now,
                        heartbeat_at=now,
                        message=None,
                    )
                )
                # Another service may have taken it in between.
                if changed.rowcount == 1:
                    return _submission(self._required(connection, entry.study))
            return None

    def set_process(self, study: str, service: str, process: str) -> None:
        """Say which process drives a submission that the service holds."""
        self._change(study, service, process=process)

    def keep(self, service: str) -> None:
        """Be heard of: nobody else takes what this service holds."""
        with self._writing() as connection:
            connection.execute(
                update(SubmissionRow)
                .where(SubmissionRow.service == service, SubmissionRow.state.in_(_ACTIVE_VALUES))
                .values(heartbeat_at=self._now(connection))
            )

    def take_over(self, service: str, *, silent_s: float, dead_services: Collection[str] = ()) -> list[Submission]:
        """Take what services held that are gone.

        Args:
            service: Who takes it.
            silent_s: Seconds after which a service that was not heard of counts as gone, > 0.
            dead_services: Services known to be gone.

        Returns:
            What was taken, in the states it had; its drivers may be alive.
        """
        with self._writing() as connection:
            silent_since = self._now(connection) - timedelta(seconds=silent_s)
            lost = (SubmissionRow.heartbeat_at <= silent_since) | SubmissionRow.service.in_(list(dead_services))
            statement = (
                select(SubmissionRow.study)
                .where(SubmissionRow.state.in_(_ACTIVE_VALUES), SubmissionRow.service != service, lost)
                .order_by(SubmissionRow.id)
                .with_for_update(skip_locked=True)
            )
            names = list(connection.execute(statement).scalars())
            for name in names:
                connection.execute(
                    update(SubmissionRow)
                    .where(SubmissionRow.study == name)
                    .values(service=service, heartbeat_at=self._now(connection))
                )
            return [_submission(self._required(connection, name)) for name in names]

    def request_stop(self, study: str) -> Submission:
        """Ask for a search to be stopped: one that waits is STOPPED at once, one at work is STOPPING.

        Returns:
            The submission; unchanged if it is stopping or has ended.

        Raises:
            NotFoundError: If that study was not submitted.
        """
        with self._writing() as connection:
            row = self._required(connection, study, lock=True)
            if row.state == SubmissionState.QUEUED.value:
                values = {"state": SubmissionState.STOPPED.value, "finished_at": self._now(connection)}
            elif row.state == SubmissionState.RUNNING.value:
                values = {"state": SubmissionState.STOPPING.value}
            else:
                return _submission(row)
            connection.execute(update(SubmissionRow).where(SubmissionRow.id == row.id).values(**values))
            return _submission(self._required(connection, study))

    def finish(self, study: str, service: str, state: SubmissionState, message: str | None = None) -> None:
        """Say how a search ended that the service holds."""
        if not state.is_finished:
            raise ValueError(f"a submission ends STOPPED, COMPLETE or FAILED, but got {state}.")
        self._change(study, service, state=state.value, message=message, is_end=True)

    def put_back(self, study: str, service: str, *, counts: bool, message: str | None = None) -> None:
        """Queue a search again that the service holds, at its old place.

        Args:
            study: Name of the study.
            service: Who holds it.
            counts: Whether this counts as an attempt.
            message: Why.
        """
        self._change(study, service, state=SubmissionState.QUEUED.value, message=message, n_attempts=int(counts))

    def _change(self, study: str, service: str, *, is_end: bool = False, n_attempts: int = 0, **values: Any) -> None:
        """Change what the service holds; nothing if it does not hold it any more."""
        with self._writing() as connection:
            if is_end:
                values["finished_at"] = self._now(connection)
            if n_attempts:
                values["attempts"] = SubmissionRow.attempts + n_attempts
            connection.execute(
                update(SubmissionRow)
                .where(SubmissionRow.study == study, SubmissionRow.service == service)
                .where(SubmissionRow.state.in_(_ACTIVE_VALUES))
                .values(**values)
            )

    def _turns(self, connection: Any) -> list[QueueEntry]:
        columns = (SubmissionRow.study, SubmissionRow.owner, SubmissionRow.queued_at)
        waiting = select(*columns).where(SubmissionRow.state == SubmissionState.QUEUED.value)
        queue = [QueueEntry(study=row[0], owner=row[1], queued_at=row[2]) for row in connection.execute(waiting)]
        if not queue:
            return []
        started = select(SubmissionRow.owner, func.max(SubmissionRow.started_at)).group_by(SubmissionRow.owner)
        active = (
            select(SubmissionRow.owner, func.count())
            .where(SubmissionRow.state.in_(_ACTIVE_VALUES))
            .group_by(SubmissionRow.owner)
        )
        n_active = dict(connection.execute(active).all())
        history = {
            owner: OwnerHistory(n_active=n_active.get(owner, 0), last_started_at=moment)
            for owner, moment in connection.execute(started)
        }
        return turn_order(queue, history)

    def _lock_owner(self, connection: Any, owner: str) -> None:
        """Let one submission of an owner be counted at a time; SQLite has one writer anyway."""
        if not self._is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(_OWNER_LOCK, func.hashtext(owner))))

    @staticmethod
    def _check_queue(connection: Any, owner: str, max_queued: int) -> None:
        statement = select(func.count()).where(
            SubmissionRow.owner == owner, SubmissionRow.state == SubmissionState.QUEUED.value
        )
        n_queued = connection.execute(statement).scalar_one()
        if n_queued >= max_queued:
            raise SubmissionConflictError(
                f"{n_queued} searches of {owner} wait already, and no more may; stop one, or wait for one to start."
            )

    def _required(self, connection: Any, study: str, *, lock: bool = False) -> Row[Any]:
        row = self._row(connection, study, lock=lock)
        if row is None:
            raise NotFoundError(f"no search of a study {study!r} was submitted here; see `autopeft status --all`.")
        return row

    @staticmethod
    def _row(connection: Any, study: str, *, lock: bool = False) -> Row[Any] | None:
        statement = select(SubmissionRow.__table__).where(SubmissionRow.study == study)
        found: Row[Any] | None = connection.execute(statement.with_for_update() if lock else statement).first()
        return found


def _submission(row: Row[Any]) -> Submission:
    return Submission(
        study=row.study,
        owner=row.owner,
        settings=json.loads(row.settings),
        state=SubmissionState(row.state),
        attempts=row.attempts,
        service=row.service,
        process=row.process,
        message=row.message,
        created_at=row.created_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
