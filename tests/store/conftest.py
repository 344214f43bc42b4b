"""A PostgreSQL cluster of one's own: started for the first test that wants it, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import create_engine, text

from autopeft.store import SqlStore
from tests.store.builders import FakeClock
from tests.store.filled import fill

PASSWORD = "s3cr:t/@ %"


@dataclass
class Cluster:
    """A running PostgreSQL cluster on the loopback interface."""

    binaries: Path
    folder: Path
    port: int
    user: dict[str, object]

    def run(self, *command: str) -> None:
        subprocess.run(
            [str(self.binaries / command[0]), *command[1:]],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            timeout=120,
            **self.user,  # type: ignore[call-overload]
        )

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k '' -c fsync=off -c max_connections=50"
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), "-l", log, "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder / "data"))

    def url(self, database: str = "postgres", *, password: str = PASSWORD) -> str:
        return f"postgresql://autopeft:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"


@contextmanager
def sent() -> Iterator[list[str]]:
    """Statements as they are sent to a PostgreSQL server, whoever sends them; BEGIN and COMMIT are not among them."""
    seen: list[str] = []
    real = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(str(query))
        return real(cursor, query, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", note)
        yield seen


def execute(url: str, *statements: str) -> None:
    """Run statements outside of any transaction."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def _find_binaries() -> Path | None:
    on_path = shutil.which("initdb")
    # Debian keeps them out of the PATH; a link on the PATH stands for the real folder.
    found = [Path(on_path).resolve()] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _ordinary_user() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster for the session; skips where PostgreSQL is not installed, but not in continuous integration."""
    if _find_binaries() is None:
        reason = "PostgreSQL's binaries (initdb, pg_ctl, postgres) are not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with started_cluster() as made:
        yield made


@contextmanager
def started_cluster() -> Iterator[Cluster]:
    """A cluster of one's own, as long as the block runs.

    Raises:
        FileNotFoundError: If PostgreSQL is not installed.
    """
    binaries = _find_binaries()
    if binaries is None:
        raise FileNotFoundError("PostgreSQL's binaries (initdb, pg_ctl, postgres) are not installed")
    user = _ordinary_user()
    folder = Path(tempfile.mkdtemp(prefix="autopeft-postgres-"))
    if user:
        os.chown(folder, user["user"], user["group"])  # type: ignore[arg-type]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Cluster(binaries=binaries, folder=folder, port=port, user=user)
    try:
        (folder / "password").write_text(PASSWORD)
        settings = ["-U", "autopeft", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
        made.run("initdb", "-D", str(folder / "data"), "--no-locale", "-E", "UTF8", "--no-sync", *settings)
        made.start()
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'a b%20#?.db'}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    execute(cluster.url(), "CREATE DATABASE reader_test")
    yield cluster.url("reader_test")
    execute(cluster.url(), "DROP DATABASE reader_test WITH (FORCE)")


@pytest.fixture
def filled(any_url: str) -> Iterator[SqlStore]:
    """See `fill`."""
    clock = FakeClock()
    with SqlStore(any_url, clock=clock) as store:
        fill(store, clock)
        yield store
