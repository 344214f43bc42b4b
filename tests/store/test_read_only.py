"""Read-only connections to SQLite files, through the reader that uses them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from autopeft.exceptions import NotFoundError, StoreError
from autopeft.store import SqlStore, StudyReader
from autopeft.store._engine import parse_url
from autopeft.store._read_only import read_only_sqlite
from tests.store.builders import make_spec


def test_the_file_cannot_be_written_through_it(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with SqlStore(path) as store:
        store.create_study(make_spec())
    engine = read_only_sqlite(parse_url(path), 1.0)
    with engine.begin() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            driver.execute("DELETE FROM studies")


def test_a_database_that_goes_away_is_told_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    reader = StudyReader(path)
    with pytest.raises(NotFoundError, match="no study in"):
        reader.check()
    assert not path.exists()
    with SqlStore(path) as store:
        store.create_study(make_spec())
    reader.check()
    assert len(reader.overviews()) == 1
    path.rename(tmp_path / "moved.db")
    with pytest.raises(NotFoundError):
        reader.overviews()
    path.write_text("no database " * 100)
    with pytest.raises(StoreError, match="not a readable SQLite database"):
        reader.overviews()
    path.unlink()
    (tmp_path / "moved.db").rename(path)
    assert len(reader.overviews()) == 1


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs another user to read as")
def test_a_file_in_a_folder_that_may_not_be_written_can_be_read() -> None:
    folder = Path(tempfile.mkdtemp(prefix="autopeft-reader-"))
    try:
        with SqlStore(folder / "studies.db") as store:
            store.create_study(make_spec())
        (folder / "studies.db").chmod(0o644)
        folder.chmod(0o555)
        code = (
            "import os, sys; from autopeft.store import StudyReader; reader = StudyReader(sys.argv[1]); "
            "os.setuid(65534); print([item.name for item in reader.overviews()])"
        )
        command = [sys.executable, "-c", code, str(folder / "studies.db")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "['s']", done.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
