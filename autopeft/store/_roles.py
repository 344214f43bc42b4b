"""Users of a PostgreSQL database with no more rights than they need: those that write, and those that only read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from autopeft.exceptions import StoreError, UsageError
from autopeft.store._engine import make_engine, parse_url, read_password, shown_url, translated_errors
from autopeft.store._models import Base
from autopeft.store._schema import VERSION_TABLE

_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TABLE_RIGHTS = {True: "SELECT, INSERT, UPDATE, DELETE", False: "SELECT"}


def grant(url: str | Path, role: str, password_file: Path, *, writes: bool) -> None:
    """Give a role its password and its rights on autopeft's tables; make it if it is not there.

    A role that writes can change rows and no table; one that reads cannot change anything. Called again, as after an
    upgrade, it renews the password and adds the rights on new tables.

    Args:
        url: Of the database, as a user that may create roles and owns the tables.
        role: Its name, lower-case letters, digits and underscores.
        password_file: Its password is the first line.
        writes: Whether it may change rows.

    Raises:
        UsageError: If the database has no roles, or the name is none.
        StoreError: If the password cannot be read, or the database refuses.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise UsageError(f"only PostgreSQL has roles, but the database is {shown_url(parsed)}; leave them out.")
    if not _ROLE.fullmatch(role):
        raise UsageError(f"a role's name has lower-case letters, digits and underscores, but got {role[:80]!r}.")
    if role == parsed.username:
        raise UsageError(f"role {role} is the one that looks after {shown_url(parsed)}; name another one.")
    password = read_password(password_file, f"the password of role {role}")
    engine = make_engine(parsed, busy_timeout_s=30.0)
    try:
        with translated_errors(parsed), engine.begin() as connection:
            _set_password(connection, role, password)
            _set_rights(connection, role, writes=writes)
    finally:
        engine.dispose()


def _set_password(connection: Connection, role: str, password: str) -> None:
    native: Any = connection.connection.dbapi_connection
    # The server gets, and perhaps logs, what it stores: the hash.
    hashed = native.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode("ascii")
    is_there = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
    plain = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
    word = "ALTER" if is_there else "CREATE"
    _run(connection, f"{word} ROLE %I WITH {plain} PASSWORD %L", role, hashed)


def _set_rights(connection: Connection, role: str, *, writes: bool) -> None:
    database, schema = connection.execute(text("SELECT current_database(), current_schema()")).one()
    if schema is None:
        raise StoreError("the database has no schema that can be used; create one: CREATE SCHEMA public.")
    _run(connection, "GRANT CONNECT ON DATABASE %I TO %I", database, role)
    _run(connection, "GRANT USAGE ON SCHEMA %I TO %I", schema, role)
    for table in (*Base.metadata.tables, VERSION_TABLE):
        rights = _TABLE_RIGHTS[writes and table != VERSION_TABLE]
        _run(connection, "REVOKE ALL ON TABLE %I.%I FROM %I", schema, table, role)
        _run(connection, f"GRANT {rights} ON TABLE %I.%I TO %I", schema, table, role)
    if writes:
        for sequence in connection.execute(text(_SEQUENCES), {"schema": schema}).scalars().all():
            if sequence.split("\n")[0] in Base.metadata.tables:
                _run(connection, "GRANT USAGE, SELECT ON SEQUENCE %I.%I TO %I", schema, sequence.split("\n")[1], role)
    # Second to the rights: a mistake in the rights of a table must not let a reader write.
    setting = "RESET default_transaction_read_only" if writes else "SET default_transaction_read_only = on"
    _run(connection, f"ALTER ROLE %I {setting}", role)


#: Sequences behind the columns of a schema's tables, each as the table's name, a line feed, and its own.
_SEQUENCES = """
SELECT owner.relname || chr(10) || item.relname
FROM pg_class item
JOIN pg_namespace space ON space.oid = item.relnamespace
JOIN pg_depend link ON link.objid = item.oid AND link.deptype IN ('a', 'i')
JOIN pg_class owner ON owner.oid = link.refobjid
WHERE item.relkind = 'S' AND space.nspname = :schema
"""


def _run(connection: Connection, pattern: str, *values: str) -> None:
    """Run a statement that takes no parameters, with names and texts quoted by the server itself."""
    names = {f"value{index}": value for index, value in enumerate(values)}
    listing = "".join(f", CAST(:{name} AS text)" for name in names)
    statement = connection.execute(
        text(f"SELECT format(:pattern{listing})"), {"pattern": pattern, **names}
    ).scalar_one()
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
