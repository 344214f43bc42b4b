from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from autopeft.exceptions import UsageError
from autopeft.rewards._general_text import general_text
from autopeft.tasks import load_task

PROSE = "This is a paragraph of plain prose that has more than a dozen words in it, as it must."


def test_every_python_has_prose_enough():
    found = general_text()
    assert len(found) == len(set(found)) > 300
    assert all(12 <= len(text.split()) <= 64 for text in found)
    assert any("mutable" in text for text in found)


def test_no_task_of_ours_trains_on_it():
    task = load_task("stdlib/topics")
    texts = {" ".join(text.casefold().split()) for split in task.splits.values() for text in split.texts}
    assert not texts & {text.casefold() for text in general_text()}


def test_own_file_gives_its_paragraphs_once_and_prose_only(tmp_path: Path):
    path = tmp_path / "notes.txt"
    table = "| 1 | 2 | 3 |\n" * 20
    path.write_text(f"{PROSE}\n\ntoo short\n\n{table}\n\n{PROSE}\n\n{PROSE.replace('plain', 'other')}\n")
    assert general_text(str(path)) == (PROSE, PROSE.replace("plain", "other"))


def test_long_paragraphs_are_cut(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("word " * 200)
    assert [len(text.split()) for text in general_text(str(path))] == [64]


def test_file_without_prose_or_that_cannot_be_read_says_so(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("1 2 3\n")
    with pytest.raises(UsageError, match=r"no paragraph of 12 words.*forgetting.text=FILE"):
        general_text(str(path))
    with pytest.raises(UsageError, match="cannot be read as UTF-8"):
        general_text(str(tmp_path / "none.txt"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as UTF-8"):
        general_text(str(path))


def test_python_without_its_reference_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UsageError, match="this Python comes without its language reference"):
        general_text()
