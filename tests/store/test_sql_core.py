"""What every part of the store in a database needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.exceptions import NotFoundError, StoreError
from autopeft.store._sql_core import SqlCore


def test_a_store_that_cannot_be_opened_leaves_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.db").write_text("no database " * 100)
    disposed = []
    monkeypatch.setattr("sqlalchemy.Engine.dispose", lambda engine, *args, **more: disposed.append(engine))
    with pytest.raises(StoreError, match="is not a readable SQLite database"):
        SqlCore(tmp_path / "a.db")
    assert len(disposed) == 1


def test_unknown_studies_are_named(tmp_path: Path) -> None:
    with (
        SqlCore(tmp_path / "a.db") as core,
        core._reading() as connection,
        pytest.raises(NotFoundError, match=r"no study named 'x' in sqlite:///.* It has no studies yet"),
    ):
        core._study_id(connection, "x")
