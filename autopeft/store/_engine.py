"""From a URL or path to a connected engine, and from a driver's errors to messages with a way out."""

from __future__ import annotations

import os
import re
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from autopeft.exceptions import StoreError

_SUPPORTED = "sqlite:///FILE, a plain path, or postgresql://USER@HOST/DATABASE?password_file=FILE"
_CONNECT_TIMEOUT_S = 10
#: Executions after which psycopg has a statement planned once for all. A plan that was made while a study was small
#: goes through all its trials once it is large (85 instead of 13 ms per trial of a local search after 20,000), so that
#: only statements whose plan is known, those that are run directly, are prepared.
_NEVER_PREPARED = 2**31
#: A connection that was not used for longer may be dead: servers restart, and networks forget.
_PING_AFTER_S = 1.0
#: Option of a PostgreSQL URL: the file that holds the password, so that the URL can be shown, stored and sent.
PASSWORD_FILE = "password_file"  # noqa: S105 (the name of the option)


def mask_url(url: str) -> str:
    """The URL or path with every password replaced by ``***``, fit for logs and messages; never raises."""
    # SQLAlchemy takes everything up to an @ for the password, slashes and question marks too.
    masked = re.sub(r"(://[^/?#@:\s]*:)[^@\s]*@(?:[^/?#@\s]*@)*", r"\1***@", url)
    return re.sub(r"(?i)([?&][^=&]*password=)[^&#]*", r"\1***", masked)


def parse_url(url: str | Path) -> URL:
    """Read a database URL or a plain path.

    Raises:
        StoreError: If it is neither SQLite nor PostgreSQL, or names no file.
    """
    written = str(url)
    if "://" not in written:
        if not written.strip() or written == ":memory:":
            raise StoreError(f"a database needs a file or URL, but got {written!r}; give {_SUPPORTED}.")
        return URL.create("sqlite", database=str(Path(written).expanduser()))
    try:
        parsed = make_url(written)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"cannot read the database URL {mask_url(written)!r}; give {_SUPPORTED}.") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or parsed.host:
            raise StoreError(
                f"{mask_url(written)!r} names no file; give sqlite:///relative.db or sqlite:////absolute.db."
            )
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).expanduser()))
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"{backend!r} databases are not supported, but got {mask_url(written)!r}; give {_SUPPORTED}.")


def shown_url(url: URL) -> str:
    """The URL with the password masked and without the driver, as a user may type it."""
    return mask_url(url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True))


def make_engine(url: URL, *, busy_timeout_s: float, autocommit: bool = False) -> Engine:
    """Build an engine; nothing is opened yet.

    Connections whose execution option ``writes`` is true start with ``BEGIN IMMEDIATE`` on SQLite, so that two writers
    wait for each other at the start of a transaction, where waiting is possible, and never in its middle.

    Args:
        url: Of the database.
        busy_timeout_s: Seconds to wait for other writers of an SQLite database, >= 0.
        autocommit: Whether a connection to PostgreSQL makes a transaction of every statement, unless it is asked for
            an isolation level; to change that for each statement costs more than many a statement.

    Raises:
        StoreError: If the driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
        _prepare_sqlite(engine, busy_timeout_s)
        _forget_connections_after_fork(engine)
        return engine
    query = dict(url.query)
    query.setdefault("connect_timeout", str(_CONNECT_TIMEOUT_S))
    query.setdefault("application_name", "autopeft")
    password_file = query.pop(PASSWORD_FILE, None)
    try:
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        options["connect_args"] = {"prepare_threshold": _NEVER_PREPARED}
        engine = create_engine(url.set(query=query), skip_autocommit_rollback=autocommit, **options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(
            f"PostgreSQL at {shown_url(url)} needs the driver psycopg, which is not installed: "
            "pip install 'autopeft[postgres]'."
        ) from error
    if password_file is not None:
        _read_password_on_connect(engine, url, Path(str(password_file)))
    _plan_for_few_rows(engine)
    if autocommit:
        _plan_single_statements_once(engine)
    _ping_before_use(engine)
    _forget_connections_after_fork(engine)
    return engine


def _plan_for_few_rows(engine: Engine) -> None:
    """Have the server plan for what workers ask again and again: a few rows of large tables.

    It compiles no plans (`jit`): that takes a thousand times as long as to run them, and it would do so for a claim as
    soon as it believes that there are many studies. And it goes through no table that has an index (`enable_seqscan`):
    as long as it believes that a table is as small as it was a minute ago, it would go through all of it, every time.
    Nor does it collect entries of an index before it looks at their rows (`enable_bitmapscan`): a scan that looks at
    once marks the entries of what waited or ran before, and the next one passes over them.
    """

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        before = connection.autocommit
        connection.autocommit = True
        connection.execute("SET jit = off; SET enable_seqscan = off; SET enable_bitmapscan = off")
        connection.autocommit = before


def _plan_single_statements_once(engine: Engine) -> None:
    """Have the server plan a statement that is prepared once, and those of a transaction of several every time.

    Left to itself it compares what a plan would cost with what the first plans of that statement cost, which it made
    while there were few trials, and goes on to plan each claim and each result anew: that takes longer than to run it.
    What is read in transactions is another share of a study every time, and wants a plan for that.
    """

    @event.listens_for(engine, "connect")
    def plan_once(connection: Any, _record: Any) -> None:
        connection.execute("SET plan_cache_mode = force_generic_plan")

    @event.listens_for(engine, "begin")
    def plan_every_time(connection: Connection) -> None:
        if "isolation_level" in connection.get_execution_options():
            connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")


def _ping_before_use(engine: Engine) -> None:
    """Make sure that a connection is alive before it is used, unless it was used a moment ago.

    SQLAlchemy's own `pool_pre_ping` asks every time: that is a journey to the server for each one that does something.
    """

    @event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used_at", 0.0) < _PING_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # The pool then takes another connection, or makes one.
            raise DisconnectionError from error


def _read_password_on_connect(engine: Engine, url: URL, path: Path) -> None:
    """Keep the password out of the URL, which travels, and let it change while the engine lives."""

    @event.listens_for(engine, "do_connect")
    def add_password(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["password"] = read_password(path, f"the password of {shown_url(url)}")


def read_password(path: Path, what: str) -> str:
    """The first line of a file.

    Args:
        path: The file.
        what: Whose password it is, for messages.

    Raises:
        StoreError: If it cannot be read or is empty.
    """
    try:
        password = path.read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StoreError(
            f"{what} is in {path}, which cannot be read ({reason}); `autopeft cluster init` writes such files."
        ) from error
    if not password:
        raise StoreError(f"{what} is in {path}, which is empty; write it there, in one line.")
    return password


def _forget_connections_after_fork(engine: Engine) -> None:
    # Parent and child must not talk over one connection; the child opens its own.
    reference = weakref.ref(engine)

    def forget() -> None:
        alive = reference()
        if alive is not None:
            alive.dispose(close=False)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _prepare_sqlite(engine: Engine, busy_timeout_s: float) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would open transactions itself, too late and without IMMEDIATE; `begin` below does it.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        _switch_to_wal(connection, busy_timeout_s)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    deadline = time.monotonic() + busy_timeout_s
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait for the busy timeout here.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def translated_errors(url: URL) -> Iterator[None]:
    """Turn what the driver raises into `StoreError`; constraint violations included, which callers catch inside."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        raise _translate(url, cause) from error
    except sqlite3.Error as error:
        raise _translate(url, error) from error


def _translate(url: URL, error: BaseException) -> StoreError:
    detail = " ".join(str(error).split())
    if url.password:
        # As a word of its own: a short password must not eat the letters of the message.
        detail = re.sub(rf"(?<!\w){re.escape(str(url.password))}(?!\w)", "***", detail)
    explain = _explain_sqlite if url.get_backend_name() == "sqlite" else _explain_postgres
    return StoreError(explain(url, mask_url(detail)))


def _explain_sqlite(url: URL, detail: str) -> str:
    path = Path(url.database or "")
    if "not a database" in detail or "malformed" in detail:
        return f"{path} is not a readable SQLite database ({detail}); restore a copy, or give another file with --db."
    if "locked" in detail:
        return (
            f"database {path} is locked: another process has been writing to it for too long ({detail}); "
            "wait for it or end it, then run the same command again."
        )
    if "readonly" in detail:
        return f"database {path} cannot be written ({detail}); change its permissions or give another file with --db."
    if "unable to open" in detail:
        if path.is_dir():
            return f"database {path} is a folder; give a file with --db."
        return (
            f"database {path} cannot be opened ({detail}); make sure that the folder {path.parent} exists and can be "
            "written, or give another file with --db."
        )
    if "full" in detail or "disk I/O" in detail:
        return f"database {path} cannot be written ({detail}); free some disk space, then run the same command again."
    return f"database {path} failed: {detail}."


def _explain_postgres(url: URL, detail: str) -> str:
    shown = shown_url(url)
    if "authentication failed" in detail or "no password supplied" in detail:
        return f"PostgreSQL refused the user or password of {shown} ({detail}); correct them in the URL."
    if "does not exist" in detail and "database" in detail:
        return f"PostgreSQL has no database {url.database!r} at {shown} ({detail}); create it with createdb."
    if "read-only transaction" in detail:
        return (
            f"{shown} can only be read ({detail}); give a user that may write, or the server that takes writes if this "
            "is a replica."
        )
    if "permission denied" in detail:
        return (
            f"the user of {shown} may not do this ({detail}); grant it CREATE on the schema and rights on the tables."
        )
    return (
        f"PostgreSQL at {shown} cannot be reached or failed ({detail}); "
        "check that the server runs and that host, port and database in the URL are right."
    )
