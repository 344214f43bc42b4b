"""Folders: what is made, what is replaced, what is never touched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from autopeft.exceptions import MachineError, UsageError
from autopeft.export._folder import file_hashes, open_to_readers, prepare_folder, read_record, write_record


def test_a_new_or_empty_folder_is_used(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b", force=False)
    prepare_folder(tmp_path / "a" / "b", force=False)
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_with_files_needs_force_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty.*--force"):
        prepare_folder(tmp_path, force=False)
    prepare_folder(tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        prepare_folder(tmp_path / "notes.txt", force=True)


def test_force_removes_an_earlier_export_and_nothing_else(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "notes.txt"):
        (tmp_path / name).write_text(name)
    write_record(tmp_path, {"files": {"adapter_config.json": "", "adapter_model.safetensors": "", "../other": ""}})
    (tmp_path.parent / "other").write_text("outside")
    prepare_folder(tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path.parent / "other").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "adapter_config.json"])
def test_force_does_not_delete_a_model_that_no_export_wrote(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=f"no export wrote .{name}"):
        prepare_folder(tmp_path, force=True)
    assert (tmp_path / name).exists()


def test_a_folder_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        prepare_folder(tmp_path / "file" / "below", force=False)


def test_records_round_trip_and_anything_else_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "autopeft.json").write_text("[1]")
    assert read_record(tmp_path) is None
    write_record(tmp_path, {"a": "ü"})
    assert read_record(tmp_path) == {"a": "ü"}


def test_hashes_are_of_the_bytes_without_record_and_card(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "README.md").write_text("card")
    write_record(tmp_path, {})
    assert file_hashes(tmp_path) == {"x": hashlib.sha256(b"abc").hexdigest()}


def test_files_get_the_mode_of_new_ones(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("")
    (tmp_path / "shut").write_text("")
    (tmp_path / "shut").chmod(0o600)
    open_to_readers(tmp_path)
    assert (tmp_path / "shut").stat().st_mode == (tmp_path / "new").stat().st_mode
