from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli, Save
from tests.export.studies import full_study


def test_upgrade_makes_a_new_database_and_then_has_nothing_to_do(cli: Cli, tmp_path: Path) -> None:
    db = str(tmp_path / "deep" / "new.db")
    first = json.loads(cli("db", "upgrade", "--db", db, "--format", "json").out)
    assert first["before"] is None
    second = cli("db", "upgrade", "--db", db)
    assert second.code == 0
    assert f"is up to date (schema {first['after']})" in second.out


def test_upgrade_keeps_what_is_stored(cli: Cli, save: Save) -> None:
    db = save(full_study())
    before = cli("trials", "--db", db, "--format", "json").out
    assert cli("db", "upgrade", "--db", db).code == 0
    assert cli("trials", "--db", db, "--format", "json").out == before


def test_upgrade_of_what_is_no_database_is_exit_code_4(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("no database " * 200)
    ran = cli("db", "upgrade", "--db", str(path))
    assert ran.code == 4
    assert path.read_text() == "no database " * 200
