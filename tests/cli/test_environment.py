from pathlib import Path

import pytest

from autopeft.cli._environment import (
    artifacts_flag,
    cache_folder,
    data_folder,
    database_flag,
    database_note,
    database_url,
    home_folder,
    is_debug,
    sqlite_path,
)


def test_home_holds_the_default_database_and_the_caches() -> None:
    environment = {"AUTOPEFT_HOME": "/somewhere"}
    assert home_folder(environment) == Path("/somewhere")
    assert database_url(None, environment) == "sqlite:////somewhere/autopeft.db"
    assert cache_folder(environment) == Path("/somewhere/cache")


def test_without_a_home_the_users_own_folders_are_taken() -> None:
    assert home_folder({}).name == "autopeft"
    assert cache_folder({}).name == "autopeft"
    assert home_folder({}) != cache_folder({})


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("/a/b.db", {"AUTOPEFT_DB": "/c.db"}, "sqlite:////a/b.db"),
        (None, {"AUTOPEFT_DB": "/c.db", "AUTOPEFT_HOME": "/h"}, "sqlite:////c.db"),
        ("postgresql://me@host/db", {}, "postgresql://me@host/db"),
    ],
)
def test_a_given_database_wins_over_the_environment(
    given: str | None, environment: dict[str, str], expected: str
) -> None:
    assert database_url(given, environment) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////a/b.db", Path("/a/b.db")),
        ("sqlite:///b.db", Path("b.db")),
        ("sqlite+pysqlite:////a/b.db?timeout=5", Path("/a/b.db")),
        ("sqlite:///:memory:", None),
        ("postgresql://me@host/a.db", None),
    ],
)
def test_the_file_behind_a_url(url: str, expected: Path | None) -> None:
    assert sqlite_path(url) == expected


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@host/db", "postgresql://me@host/db?password=s3cret"])
def test_a_database_with_a_password_is_left_out_of_commands_which_a_note_tells(url: str) -> None:
    assert database_flag(url, {}) == ()
    note = database_note(url, {})
    assert note is not None
    assert "set AUTOPEFT_DB to the URL" in note
    assert "s3cret" not in note
    assert database_flag(url, {"AUTOPEFT_DB": url}) == ()
    assert database_note(url, {"AUTOPEFT_DB": url}) is None


@pytest.mark.parametrize("given", ["a.db", "sqlite:////a/b.db", "postgresql://me@host/db"])
def test_any_other_database_stands_in_commands(given: str) -> None:
    assert database_flag(given, {}) == ("--db", given)
    assert database_flag(given, {"AUTOPEFT_DB": given}) == ()
    assert database_note(given, {}) is None


def test_no_given_database_needs_no_words() -> None:
    assert database_flag(None, {}) == ()
    assert database_note(None, {}) is None


def test_task_files_and_debug() -> None:
    assert data_folder(Path("/d"), {"AUTOPEFT_DATA_DIR": "/e"}) == Path("/d")
    assert data_folder(None, {"AUTOPEFT_DATA_DIR": "/e"}) == Path("/e")
    assert data_folder(None, {}) is None
    assert is_debug({"AUTOPEFT_DEBUG": "1"})
    assert not is_debug({"AUTOPEFT_DEBUG": "0"})
    assert not is_debug({})


def test_the_place_of_artifacts_is_in_commands_unless_the_environment_names_it() -> None:
    assert artifacts_flag(None, {}) == ()
    assert artifacts_flag("s3://bucket/x", {"AUTOPEFT_ARTIFACTS": "s3://bucket/x"}) == ()
    assert artifacts_flag("s3://bucket/x", {}) == ("--artifacts", "s3://bucket/x")
