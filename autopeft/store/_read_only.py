"""Connections to SQLite files that cannot write."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event


def read_only_sqlite(url: URL, busy_timeout_s: float) -> Engine:
    """An engine whose connections are made anew for each transaction, so that a replaced file is noticed."""
    path = Path(url.database or "")

    def connect() -> sqlite3.Connection:
        def opened(flags: str) -> sqlite3.Connection:
            address = f"file:{quote(str(path.absolute()))}?{flags}"
            connection = sqlite3.connect(address, uri=True, timeout=busy_timeout_s, check_same_thread=False)
            connection.isolation_level = None
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection

        try:
            return opened("mode=ro")
        except sqlite3.OperationalError:
            # SQLite needs to make files beside a database in WAL mode. Where it may not, and nobody is writing (a
            # writer's file would be there), the database is as good as a constant.
            if path.with_name(path.name + "-wal").exists() or not path.is_file():
                raise
            return opened("immutable=1")

    engine = create_engine(url, creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
