"""What every part of the store in a database needs: connections, transactions, the time, and a study's key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Select, bindparam, func, select

from autopeft.exceptions import NotFoundError
from autopeft.store import _messages as messages
from autopeft.store._base import Clock, utc_now
from autopeft.store._direct import DirectRunner
from autopeft.store._engine import make_engine, parse_url, shown_url, translated_errors
from autopeft.store._models import StudyRow, TrialRow
from autopeft.store._schema import prepare_schema


class SqlCore:
    """See `SqlStore` for the arguments."""

    def __init__(
        self, url: str | Path, *, clock: Clock | None = None, busy_timeout_s: float = 30.0, create: bool = True
    ) -> None:
        self._url = parse_url(url)
        self._clock = clock
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        pool = make_engine(self._url, busy_timeout_s=busy_timeout_s, autocommit=True)
        self._engine = pool if self._is_sqlite else pool.execution_options(isolation_level="READ COMMITTED")
        try:
            prepare_schema(self._engine, self._url, create=create)
        except BaseException:
            self._engine.dispose()
            raise
        self._has_server_clock = clock is None and not self._is_sqlite
        self._write_engine = self._engine.execution_options(writes=True)
        # PostgreSQL makes a transaction of every statement that is in none, without two more journeys.
        self._single_engine = self._write_engine if self._is_sqlite else pool
        self._direct = None if self._is_sqlite else DirectRunner(pool)
        # Several statements read one study; on SQLite every transaction is a snapshot already.
        self._read_engine = pool if self._is_sqlite else pool.execution_options(isolation_level="REPEATABLE READ")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return shown_url(self._url)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with translated_errors(self._url), self._write_engine.begin() as connection:
            yield connection

    @contextmanager
    def _single(self) -> Iterator[Connection]:
        """For one statement that writes, and what is read after it; on PostgreSQL each is a transaction of its own."""
        with translated_errors(self._url), self._single_engine.begin() as connection:
            yield connection

    def _run(self, statement: Any, parameters: Mapping[str, Any]) -> tuple[Sequence[Any], int]:
        """Run one statement, which may write, as a transaction of its own.

        Args:
            statement: One of those that are built once.
            parameters: Of the statement.

        Returns:
            Its rows, and how many it gave or changed.
        """
        if self._direct is not None:
            with translated_errors(self._url):
                return self._direct.run(statement, parameters)
        with self._single() as connection:
            result = connection.execute(statement, parameters)
            return (result.all(), -1) if result.returns_rows else ((), result.rowcount)

    @contextmanager
    def _glancing(self) -> Iterator[Connection]:
        """For reading by keys where statements need not see the same moment.

        On PostgreSQL these are planned without a look at the values that are asked for.
        """
        engine = self._read_engine if self._is_sqlite else self._single_engine
        with translated_errors(self._url), engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated_errors(self._url), self._read_engine.begin() as connection:
            yield connection

    def _times(self, lease_s: float | None = None) -> dict[str, Any]:
        """Parameters of `autopeft.store._statements.now_of` and `expiry_of`.

        Args:
            lease_s: For the second one; None for a statement without.
        """
        if self._has_server_clock:
            return {} if lease_s is None else {"p_lease_s": lease_s}
        now = utc_now() if self._clock is None else self._clock()
        times = {"p_now": now}
        return times if lease_s is None else {**times, "p_expiry": now + timedelta(seconds=lease_s)}

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if self._is_sqlite:
            return utc_now()
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def _study_id(self, connection: Connection, name: str, *, lock: bool = False) -> int:
        found: int | None = connection.execute(_key_of_study(lock), {"p_study": name}).scalar()
        if found is None:
            raise self._unknown_study(connection, name)
        return found

    def _unknown_study(self, connection: Connection, name: str) -> NotFoundError:
        names = connection.execute(select(StudyRow.name).order_by(StudyRow.id)).scalars()
        return messages.study_not_found(name, names, self.url)

    def _n_trials(self, connection: Connection, study_id: int) -> int:
        # Numbers have no gaps, so the largest one tells.
        largest = connection.execute(select(func.max(TrialRow.number)).where(TrialRow.study_id == study_id)).scalar()
        return 0 if largest is None else largest + 1


@lru_cache
def _key_of_study(lock: bool) -> Select[int]:
    statement = select(StudyRow.id).where(StudyRow.name == bindparam("p_study", type_=StudyRow.name.type))
    return statement.with_for_update(key_share=True) if lock else statement
