"""Columns of studies for tables and charts, through connections that cannot write.

What a chart needs is a few numbers of very many trials. So the database itself takes values out of the stored JSON
texts, and only the columns asked for leave it; whole trials come one at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, func, select, true

from autopeft.configuration import Configuration
from autopeft.store import _messages as messages
from autopeft.store._base import utc_now
from autopeft.store._cluster import DriverLease, WorkerRecord
from autopeft.store._cluster_rows import read_driver, read_workers
from autopeft.store._codec import decode_configuration
from autopeft.store._columns import json_keys, json_number, json_part, seconds_between
from autopeft.store._engine import make_engine, parse_url, shown_url, translated_errors
from autopeft.store._models import CurvePointRow, LeaseRow, MeasurementRow, StudyRow, TrialRow
from autopeft.store._overviews import StudyOverview, read_overviews
from autopeft.store._read_only import read_only_sqlite
from autopeft.store._readable import readable, readable_json, readable_spec, readable_trial
from autopeft.store._rows import in_chunks, read_attributes, read_trials
from autopeft.store._schema import prepare_schema
from autopeft.study import SEARCH_SPLIT, Study, Trial

#: Keys of `StudyReader.trials`, in order.
TRIAL_COLUMNS = (
    "number",
    "kind",
    "state",
    "label",
    "parent",
    "fingerprint",
    "trainable_parameters",
    "train_examples",
    "epochs",
    "seed",
    "attempts",
    "worker",
    "created_at",
    "started_at",
    "finished_at",
    "failure_reason",
    "duration_s",
)
_TEXT_COLUMNS = frozenset({"label", "worker", "failure_reason"})


class LeaseFacts(NamedTuple):
    """A claim of a trial, as far as it tells of lost workers."""

    number: int
    worker: str
    heartbeat_at: datetime
    expires_at: datetime
    outcome: str | None


class StudyReader:
    """Reads studies and cannot change them: SQLite files are opened read-only, PostgreSQL's transactions are READ ONLY.

    Every method is one transaction and sees one moment. A database that was deleted, replaced or restarted in between
    is noticed by the next call, and read again when it is back.

    Texts come as everything can show them, see `autopeft.store._readable`. A study whose name is not shown as it is
    stored is asked for by the name that is shown.

    Args:
        url: As for `open_store`.
        busy_timeout_s: Seconds to wait for other users of an SQLite database, >= 0.

    Raises:
        StoreError: If the URL cannot be read or the driver is missing; the database itself is first asked by `check`.
    """

    def __init__(self, url: str | Path, *, busy_timeout_s: float = 5.0) -> None:
        self._url = parse_url(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        if self._is_sqlite:
            self._engine = read_only_sqlite(self._url, busy_timeout_s)
        else:
            engine = make_engine(self._url, busy_timeout_s=busy_timeout_s)
            self._engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the data are, fit to be shown: passwords are masked."""
        return shown_url(self._url)

    def close(self) -> None:
        """Give back connections; later calls open new ones."""
        self._engine.dispose()

    def check(self) -> None:
        """Make sure that there is a database with this version's schema.

        Raises:
            NotFoundError: If there is none.
            StoreError: If it cannot be read, or its schema is older or newer; the message says what to do.
        """
        prepare_schema(self._engine, self._url, create=False)

    def overviews(self) -> list[StudyOverview]:
        """Every study in numbers, oldest first."""
        with self._reading() as connection:
            return read_overviews(connection, is_sqlite=self._is_sqlite)

    def overview(self, study_name: str) -> StudyOverview:
        """One study in numbers.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._reading() as connection:
            return read_overviews(connection, self._id(connection, study_name), is_sqlite=self._is_sqlite)[0]

    def attributes(self, study_name: str) -> dict[str, Any]:
        """A study's attributes, by key."""
        with self._reading() as connection:
            return readable(read_attributes(connection, self._id(connection, study_name)))

    def value_names(self, study_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sorted names of the metrics, and of the costs, that any trial was measured by on the search split."""
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            found = []
            for column in (MeasurementRow.metrics, MeasurementRow.costs):
                keys = json_keys(column, is_sqlite=self._is_sqlite)
                statement = (
                    select(keys.c.key)
                    .distinct()
                    .select_from(MeasurementRow)
                    .join(TrialRow, TrialRow.id == MeasurementRow.trial_id)
                    .join(keys, true())
                    .where(TrialRow.study_id == study_id, MeasurementRow.split == SEARCH_SPLIT)
                )
                found.append(tuple(sorted(connection.execute(statement).scalars())))
        return found[0], found[1]

    def trials(self, study_name: str, columns: Collection[str] | None = None) -> list[dict[str, Any]]:
        """What stands in a trial's own row, its long texts apart, by number: one mapping per trial.

        Args:
            study_name: Study.
            columns: Keys wanted, of `TRIAL_COLUMNS`; None for all. ``duration_s`` is the time between start and end,
                None for unfinished trials.
        """
        wanted = [name for name in TRIAL_COLUMNS if columns is None or name in columns]
        duration = seconds_between(TrialRow.started_at, TrialRow.finished_at, is_sqlite=self._is_sqlite)
        selected = [duration if name == "duration_s" else getattr(TrialRow, name) for name in wanted]
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            statement = select(*selected).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
            found = [dict(zip(wanted, row, strict=True)) for row in connection.execute(statement)]
        for name in _TEXT_COLUMNS.intersection(wanted):
            for row in found:
                row[name] = readable(row[name])
        return found

    def values(
        self, study_name: str, names: Sequence[str], *, split: str = SEARCH_SPLIT
    ) -> list[tuple[int, int | None, int | None, int, *tuple[float | None, ...]]]:
        """Natural values of metrics and costs on a split: one row per measurement, a trial's last one last.

        Args:
            study_name: Study.
            names: Names of metrics or costs.
            split: ``"search"`` or ``"report"``.

        Returns:
            Rows of trial number, the rung's step and steps in total (None at a run's end), seed, and the values.
        """
        wanted = [self._value(name).label(f"value_{i}") for i, name in enumerate(names)]
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            statement = (
                select(
                    TrialRow.number, MeasurementRow.rung_step, MeasurementRow.rung_n_steps, MeasurementRow.seed, *wanted
                )
                .join(MeasurementRow, MeasurementRow.trial_id == TrialRow.id)
                .where(TrialRow.study_id == study_id, MeasurementRow.split == split)
                .order_by(TrialRow.number, MeasurementRow.rung_step.is_(None), MeasurementRow.rung_step)
            )
            return [tuple(row) for row in connection.execute(statement)]

    def configurations(self, study_name: str, numbers: Collection[int]) -> dict[int, Configuration]:
        """Configurations of some trials, by number; unknown numbers are left out."""
        rows = self._by_number(study_name, numbers, TrialRow.configuration)
        return {number: decode_configuration(text) for number, text in rows}

    def params(self, study_name: str, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
        """Points of the search space that some trials came from; trials without one are left out."""
        rows = self._by_number(study_name, numbers, TrialRow.params)
        return {number: readable_json(text) for number, text in rows if text is not None}

    def notes(self, study_name: str, numbers: Collection[int], *path: str) -> dict[int, Any]:
        """What stands at a path into the notes of some trials; trials without it are left out."""
        rows = self._by_number(study_name, numbers, json_part(TrialRow.notes, *path, is_sqlite=self._is_sqlite))
        return {number: readable_json(text) for number, text in rows if text is not None}

    def failures(self, study_name: str, numbers: Collection[int]) -> dict[int, str]:
        """The messages of some trials' failures; the others are left out."""
        rows = self._by_number(study_name, numbers, TrialRow.failure_message)
        return {number: readable(text) for number, text in rows if text is not None}

    def curves(
        self, study_name: str, numbers: Collection[int], name: str
    ) -> list[tuple[int, int, float, float | None]]:
        """Learning curves of some trials' last runs, as reported while they ran.

        Returns:
            Rows of trial number, optimizer steps, epochs, and the metric's value (None where it was not measured).
        """
        value = json_number(CurvePointRow.metrics, name, is_sqlite=self._is_sqlite)
        found: list[tuple[int, int, float, float | None]] = []
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            for chunk in in_chunks(numbers):
                latest = (
                    select(func.max(LeaseRow.id).label("id"), TrialRow.number)
                    .join(TrialRow, TrialRow.id == LeaseRow.trial_id)
                    .where(TrialRow.study_id == study_id, TrialRow.number.in_(chunk))
                    .group_by(TrialRow.number)
                    .subquery()
                )
                statement = (
                    select(latest.c.number, CurvePointRow.step, CurvePointRow.epoch, value)
                    .join(latest, latest.c.id == CurvePointRow.lease_id)
                    .order_by(latest.c.number, CurvePointRow.step)
                )
                found += [tuple(row) for row in connection.execute(statement)]
        return found

    def leases(self, study_name: str) -> list[LeaseFacts]:
        """Claims that are held now, and those that ended because their worker was lost."""
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            statement = (
                select(TrialRow.number, LeaseRow.worker, LeaseRow.heartbeat_at, LeaseRow.expires_at, LeaseRow.outcome)
                .join(TrialRow, TrialRow.id == LeaseRow.trial_id)
                .where(TrialRow.study_id == study_id, LeaseRow.ended_at.is_(None) | (LeaseRow.outcome == "lost"))
                .order_by(LeaseRow.id)
            )
            facts = [LeaseFacts(*row) for row in connection.execute(statement)]
        return [item._replace(worker=readable(item.worker)) for item in facts]

    def driver(self, study_name: str) -> DriverLease | None:
        """Who drives a study; None if nobody does."""
        with self._reading() as connection:
            return read_driver(connection, self._id(connection, study_name), self._now(connection))

    def workers(self) -> list[WorkerRecord]:
        """All workers that have announced themselves, the oldest first: those that are gone stay for a day."""
        with self._reading() as connection:
            return [_readable_worker(item) for item in read_workers(connection, self._now(connection))]

    def trial(self, study_name: str, number: int) -> Trial:
        """A whole trial.

        Raises:
            NotFoundError: If there is no such study or trial.
        """
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            found = read_trials(connection, study_id, numbers=[number])
            if not found:
                n_trials = connection.execute(select(func.count()).where(TrialRow.study_id == study_id)).scalar_one()
                raise messages.trial_not_found(study_name, number, n_trials)
            return readable_trial(found[0])

    def study(self, study_name: str) -> Study:
        """A whole study, with everything that was ever stored of it: for reports, not for charts."""
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            text = connection.execute(select(StudyRow.spec).where(StudyRow.id == study_id)).scalar_one()
            return Study(
                spec=readable_spec(text),
                trials=tuple(map(readable_trial, read_trials(connection, study_id))),
                attributes=readable(read_attributes(connection, study_id)),
            )

    def _value(self, name: str) -> Any:
        """As `Measurement.value` reads it: a metric, else a cost."""
        metric = json_number(MeasurementRow.metrics, name, is_sqlite=self._is_sqlite)
        return func.coalesce(metric, json_number(MeasurementRow.costs, name, is_sqlite=self._is_sqlite))

    def _by_number(self, study_name: str, numbers: Collection[int], column: Any) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        with self._reading() as connection:
            study_id = self._id(connection, study_name)
            for chunk in in_chunks(numbers):
                statement = select(TrialRow.number, column).where(
                    TrialRow.study_id == study_id, TrialRow.number.in_(chunk)
                )
                found += [(number, value) for number, value in connection.execute(statement)]
        return found

    def _now(self, connection: Connection) -> datetime:
        """The time by which leases expire: the server's, where there is one."""
        if self._is_sqlite:
            return utc_now()
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def _id(self, connection: Connection, study_name: str) -> int:
        found = connection.execute(select(StudyRow.id).where(StudyRow.name == study_name)).scalar_one_or_none()
        if found is not None:
            return found
        rows = connection.execute(select(StudyRow.name, StudyRow.id).order_by(StudyRow.id))
        shown = {readable(name): study_id for name, study_id in rows}
        if study_name in shown:
            return shown[study_name]
        raise messages.study_not_found(study_name, shown, self.url)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._is_sqlite and not Path(self._url.database or "").exists():
            self.check()  # says that there is nothing
        with translated_errors(self._url), self._engine.begin() as connection:
            yield connection


def _readable_worker(item: WorkerRecord) -> WorkerRecord:
    texts = ("id", "host", "resources", "versions", "study", "refusals")
    return replace(item, facts=replace(item.facts, **{name: readable(getattr(item.facts, name)) for name in texts}))
