"""Creating, checking and upgrading the schema. Alembic is imported only where a migration runs or is looked up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, column, inspect, select, table, text
from sqlalchemy.engine import URL

from autopeft.exceptions import NotFoundError, StoreError
from autopeft.store._engine import make_engine, parse_url, shown_url, translated_errors
from autopeft.store._models import Base

if TYPE_CHECKING:
    from alembic.config import Config

#: Alembic revision that `_models` describes; a test holds it equal to the newest migration.
HEAD = "0004"
#: Alembic's own table, under a name that cannot meet another application's.
VERSION_TABLE = "autopeft_version"

_version = table(VERSION_TABLE, column("version_num"))
_ADVISORY_LOCK = 0x6175746F70656674  # "autopeft" in ASCII


def prepare_schema(engine: Engine, url: URL, *, create: bool = True) -> None:
    """Create the schema in an empty database, or check that an existing one is this version's.

    Args:
        engine: Connects to the database.
        url: Where it is, for messages.
        create: Whether a database without the schema gets it; else that is an error.

    Raises:
        NotFoundError: If there is no schema and none is to be created.
        StoreError: If the schema is older or newer than this version's, or the tables are another application's.
    """
    if create:
        make_folder(url)
    elif url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        # Connecting would make the file.
        raise _nothing_here(url)
    with translated_errors(url), engine.connect() as connection:
        revision = _read_revision(connection)
        if revision is None and not create:
            _refuse_foreign_tables(connection, url)
            raise _nothing_here(url)
    if revision is None:
        with translated_errors(url), engine.execution_options(writes=True).begin() as connection:
            _lock_schema(connection)
            # Another process may have created it while this one waited for the lock.
            if _read_revision(connection) is None:
                _refuse_foreign_tables(connection, url)
                _migrate(connection)
        return
    if revision != HEAD:
        raise StoreError(_describe_mismatch(revision, url))


def upgrade(url: str | Path, *, busy_timeout_s: float = 30.0) -> tuple[str | None, str]:
    """Bring the database's schema to this version's, or create it; nothing is lost, and all of it happens or nothing.

    Args:
        url: SQLite path or URL, or PostgreSQL URL.
        busy_timeout_s: Seconds to wait for other writers of an SQLite database.

    Returns:
        The schema's revision before (None if there was none) and after.

    Raises:
        StoreError: If the database cannot be used, or its schema is newer than this version's.
    """
    parsed = parse_url(url)
    engine = make_engine(parsed, busy_timeout_s=busy_timeout_s)
    try:
        make_folder(parsed)
        with translated_errors(parsed), engine.execution_options(writes=True).begin() as connection:
            _lock_schema(connection)
            revision = _read_revision(connection)
            if revision is None:
                _refuse_foreign_tables(connection, parsed)
            elif revision not in known_revisions():
                raise StoreError(_describe_mismatch(revision, parsed))
            if revision != HEAD:
                _migrate(connection)
        return revision, HEAD
    finally:
        engine.dispose()


def make_folder(url: URL) -> None:
    """Make the folder of an SQLite database.

    Raises:
        StoreError: If it cannot be made.
    """
    if url.get_backend_name() != "sqlite":
        return
    folder = Path(url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {folder} for the database ({error.strerror}); "
            "give a file in a writable folder with --db."
        ) from error


def known_revisions() -> tuple[str, ...]:
    """All revisions that this version can upgrade from or is at, newest first."""
    from alembic.script import ScriptDirectory

    return tuple(item.revision for item in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's settings for the migrations inside this package, without an ini file.

    Args:
        connection: Connection to migrate, inside a transaction; None to look at the scripts only.
    """
    from alembic.config import Config

    config = Config(attributes={} if connection is None else {"connection": connection})
    # A package resource instead of a path: paths may hold characters that the ini format gives a meaning.
    config.set_main_option("script_location", "autopeft.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _migrate(connection: Connection) -> None:
    from alembic import command

    command.upgrade(alembic_config(connection), "head")


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(_version.c.version_num)).scalar_one_or_none()


def _refuse_foreign_tables(connection: Connection, url: URL) -> None:
    found = set(inspect(connection).get_table_names())
    # A PostgreSQL database is often shared, an SQLite file is somebody's own.
    foreign = found if url.get_backend_name() == "sqlite" else found & set(Base.metadata.tables)
    if foreign:
        raise StoreError(
            f"{shown_url(url)} belongs to another application (it has the tables {', '.join(sorted(foreign)[:5])}); "
            "give another database with --db."
        )


def _lock_schema(connection: Connection) -> None:
    # SQLite's BEGIN IMMEDIATE is the lock already.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})


def _nothing_here(url: URL) -> NotFoundError:
    return NotFoundError(
        f"there is no study in {shown_url(url)} yet; start one with `autopeft search --task stdlib/topics "
        "--budget 1%`, or give another database with --db."
    )


def _describe_mismatch(revision: str, url: URL) -> str:
    shown = shown_url(url)
    if revision in known_revisions():
        return (
            f"{shown} has the schema {revision} of an older autopeft, this one needs {HEAD}; "
            "make a copy of it, then run `autopeft db upgrade` with the same --db or AUTOPEFT_DB"
        )
    return (
        f"{shown} has the schema {revision}, which is newer than this autopeft knows ({HEAD}); "
        "run: pip install --upgrade autopeft"
    )
