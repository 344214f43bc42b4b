from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from autopeft.store import open_store, read_archive
from autopeft.study import Study
from tests.cli.conftest import Cli, Save
from tests.export.studies import full_study
from tests.integrations.studies import make_study


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


@pytest.fixture
def optuna_ready() -> Study:
    """A study whose search space is a real one: its parameters become Optuna's."""
    return make_study()


def test_export_to_a_file_reads_back_equal(cli: Cli, save: Save, tmp_path: Path) -> None:
    db = save(full_study())
    ran = cli("db", "export", "-o", str(tmp_path / "study.json"), "--db", db)
    assert ran.code == 0
    assert ran.out.strip() == str(tmp_path / "study.json")
    with open_store(db) as store:
        assert read_archive(tmp_path / "study.json") == store.load_study(full_study().spec.name)


def test_export_to_stdout_is_the_same_document(cli: Cli, save: Save, tmp_path: Path) -> None:
    db = save(full_study())
    cli("db", "export", "-o", str(tmp_path / "study.json"), "--db", db)
    assert cli("db", "export", "-o", "-", "--db", db).out == (tmp_path / "study.json").read_text(encoding="utf-8")


def test_export_to_optuna(cli: Cli, save: Save, tmp_path: Path, optuna_ready: Study) -> None:
    db = save(replace(optuna_ready, trials=tuple(t for t in optuna_ready.trials if t.number < 3)))
    ran = cli("db", "export", "toy", "--optuna", str(tmp_path / "x.db"), "--name", "other", "--db", db)
    assert (ran.code, ran.err) == (0, "Wrote study toy with 3 trials.\n")
    theirs = optuna.load_study(study_name="other", storage=f"sqlite:///{tmp_path / 'x.db'}")
    assert [item.number for item in theirs.trials] == [0, 1, 2]
    again = cli("db", "export", "toy", "--optuna", str(tmp_path / "x.db"), "--name", "other", "--db", db)
    assert again.code == 2
    assert "has a study 'other' already" in again.err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), "either -o FILE or --optuna STORAGE"),
        (("-o", "x.json", "--optuna", "x.db"), "either -o FILE or --optuna STORAGE"),
        (("-o", "x.json", "--name", "x"), "--name is the name of an Optuna study"),
    ],
)
def test_export_must_know_where_to(cli: Cli, save: Save, flags: tuple[str, ...], problem: str) -> None:
    ran = cli("db", "export", *flags, "--db", save(full_study()))
    assert ran.code == 2
    assert problem in ran.err


def test_export_of_an_unknown_study_names_the_nearest(cli: Cli, save: Save, tmp_path: Path) -> None:
    ran = cli("db", "export", "tpy", "-o", str(tmp_path / "x.json"), "--db", save(full_study()))
    assert ran.code == 5
    assert not (tmp_path / "x.json").exists()


def test_export_into_a_folder_that_is_not_there_is_exit_code_4(cli: Cli, save: Save, tmp_path: Path) -> None:
    db = save(full_study())
    assert cli("db", "export", "-o", str(tmp_path / "no" / "x.json"), "--db", db).code == 4


def test_a_role_is_named_with_the_file_of_its_password(cli: Cli, tmp_path: Path) -> None:
    ran = cli("db", "upgrade", "--db", str(tmp_path / "a.db"), "--grant-read", "reader")
    assert ran.code == 2
    assert "--grant-read is written like autopeft=secrets/db_password, but got 'reader'" in ran.err


def test_a_database_without_users_takes_no_roles(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    ran = cli("db", "upgrade", "--db", str(tmp_path / "a.db"), "--grant-write", f"writer={tmp_path / 'secret'}")
    assert ran.code == 2
    assert "only PostgreSQL has roles" in ran.err
