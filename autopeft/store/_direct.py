"""Statements that a server is asked again and again, run by the driver itself.

SQLAlchemy writes the statements and keeps the connections. Its way from a statement to rows and back takes several
times as long as the rest, though, and what a cluster can do is bounded by the processor time of claims and results.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

_Processor = Callable[[Any], Any]


class Direct:
    """One statement, compiled once for psycopg and written as PostgreSQL reads it, with parameters ``$1``, ``$2``.

    From names of parameters psycopg would translate a long statement again every time.

    Args:
        statement: It may have no parameters that expand to lists of parameters.
        dialect: Of an engine that has connected already.
    """

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        if compiled.post_compile_params:
            raise ValueError(f"a statement that is run directly has parameters of known number, but got {compiled}.")
        binders: dict[str, _Processor | None] = {}
        constants: dict[str, str] = {}
        for bind, name in compiled.bind_names.items():
            kind = bind.type.dialect_impl(dialect)
            if bind.required:
                binders[name] = kind.bind_processor(dialect)
                continue
            # A constant: the server plans better with what it knows, and nobody sends it again and again.
            literal = kind.literal_processor(dialect)
            if literal is None:
                raise ValueError(f"no constant can be written for {name} of type {kind}.")
            constants[name] = literal(bind.value).replace("%%", "%")
        order: dict[str, str] = {}

        def written(found: re.Match[str]) -> str:
            name = found[1]
            if name is None:
                return "%"  # it was escaped, as there were names
            return constants[name] if name in constants else order.setdefault(name, f"${len(order) + 1}")

        #: As the server reads it.
        self.sql = re.sub(r"%%|%\((\w+)\)s", written, str(compiled))
        self._binders = [(name, binders[name]) for name in order]
        # Always the same object, of which the driver looks up whether the server has prepared it.
        self._encoded = self.sql.encode()
        columns = statement.exported_columns
        make: Any = namedtuple("Row", columns.keys()) if len(columns) else None
        self._make: Callable[[Sequence[Any]], Any] | None = None if make is None else make._make
        readers = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._readers = [(i, reader) for i, reader in enumerate(readers) if reader is not None]

    def run(self, cursor: Any, parameters: Mapping[str, Any]) -> tuple[list[Any], int]:
        """Run it.

        Args:
            cursor: The driver's kind for statements that are written for the server, a ``RawCursor``.
            parameters: At least those that the statement has.

        Returns:
            Rows with the statement's columns as attributes, and how many rows it gave or changed.
        """
        values = [parameters[name] if binder is None else binder(parameters[name]) for name, binder in self._binders]
        cursor.execute(self._encoded, values, prepare=True)
        if self._make is None:
            return [], cursor.rowcount
        return [self._make(self._read(row)) for row in cursor.fetchall()], cursor.rowcount

    def _read(self, row: Sequence[Any]) -> Sequence[Any]:
        values = list(row)
        for place, reader in self._readers:
            values[place] = reader(values[place])
        return values


class DirectRunner:
    """Runs statements on an engine whose connections make a transaction of every statement.

    Args:
        engine: Of PostgreSQL, in autocommit mode.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[Any, Direct] = {}
        self._make_cursor: Any = engine.dialect.loaded_dbapi.RawCursor

    def run(self, statement: Any, parameters: Mapping[str, Any]) -> tuple[list[Any], int]:
        """Run a statement as a transaction of its own; see `Direct.run`.

        Args:
            statement: One of those that are built once: what it compiles to is kept as long as the runner.
            parameters: Of the statement.

        Raises:
            DBAPIError: As SQLAlchemy raises it.
        """
        try:
            connection = self._engine.raw_connection()
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._wrapped(error) from error
        try:
            found = self._known.get(statement)
            if found is None:
                found = self._known[statement] = Direct(statement, self._engine.dialect)
            with self._make_cursor(connection.dbapi_connection) as cursor:
                return found.run(cursor, parameters)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._translated(connection, statement, error) from error
        finally:
            connection.close()

    def _translated(self, connection: Any, statement: Any, error: Any) -> Any:
        dialect = self._engine.dialect
        is_lost = dialect.is_disconnect(error, connection.dbapi_connection, None)
        if is_lost:
            connection.invalidate(error)
            # The server is gone, and with it the others.
            self._engine.dispose()
        known = self._known.get(statement)
        return self._wrapped(error, None if known is None else known.sql, is_lost=is_lost)

    def _wrapped(self, error: Any, sql: str | None = None, *, is_lost: bool = False) -> Any:
        dialect = self._engine.dialect
        return DBAPIError.instance(
            sql, None, error, dialect.loaded_dbapi.Error, connection_invalidated=is_lost, dialect=dialect
        )
