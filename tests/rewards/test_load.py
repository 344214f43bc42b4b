from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autopeft.exceptions import UsageError
from autopeft.rewards._load import load_object


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_file_relative_to_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text("VALUE = 3\n")
    assert load_object("mine.py:VALUE") == 3
    assert load_object(f"{tmp_path}/mine.py:VALUE") == 3


def test_package_in_the_current_folder(tmp_path):
    (tmp_path / "r_package").mkdir()
    (tmp_path / "r_package" / "inner.py").write_text("VALUE = 4\n")
    (tmp_path / "r_package" / "__init__.py").write_text("")
    assert load_object("r_package.inner:VALUE") == 4
    # At the end: nothing that is installed changes its meaning.
    assert sys.path[-1] == str(tmp_path)


def test_installed_module_wins_over_the_current_folder(tmp_path):
    (tmp_path / "json.py").write_text("dumps = 'mine'\n")
    import json

    assert load_object("json:dumps") is json.dumps


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nowhere.py:f", "there is no such file"),
        ("no_such_package.inner:f", "there is no package no_such_package"),
        ("json:no_such", "json has no no_such"),
        ("json:", "package.module:function or file.py:function, but got 'json:'"),
        (":f", "but got ':f'"),
        ("json:a b", "but got 'json:a b'"),
        ("json.no_such:f", "ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_found_says_which(reference, words):
    with pytest.raises(UsageError, match=words):
        load_object(reference)


@pytest.mark.parametrize("code", ["1 / 0", "def (", "raise SystemError('broken')"])
def test_code_that_fails_when_imported_says_why(tmp_path, code):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(UsageError, match=r"importing bad.py failed: \w+Error"):
        load_object("bad.py:f")
