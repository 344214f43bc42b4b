from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from autopeft.artifacts import ArtifactStore, open_artifacts, publish, study_folder
from autopeft.exceptions import ArtifactError
from autopeft.export._folder import RECORD
from dashboard.queries import _adapters, adapter_archive, stored_adapters


def export(place: ArtifactStore, folder: Path, study: str, trial: int, *, verified: bool = True) -> None:
    """What `autopeft export --publish` does, without training: the files, and the same call."""
    folder.mkdir(parents=True)
    record = {"study": study, "trial": trial, "form": "lora", "verified": verified}
    (folder / "autopeft.json").write_text(json.dumps(record))
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    (folder / "labels").mkdir()
    (folder / "labels" / "names.json").write_text("[]")
    publish(place, study, "adapters", folder)


@pytest.fixture
def place(tmp_path: Path) -> ArtifactStore:
    return open_artifacts(tmp_path / "shared")


def test_a_trials_adapters_are_found(place: ArtifactStore, tmp_path: Path) -> None:
    export(place, tmp_path / "one" / "adapter", "a study", 3)
    export(place, tmp_path / "two" / "small", "a study", 3, verified=False)
    export(place, tmp_path / "three" / "other", "a study", 4)
    export(place, tmp_path / "four" / "namesake", "a/study", 3)
    found = stored_adapters(place, "a study", 3)
    assert [(item.name, item.form, item.verified) for item in found] == [
        ("adapter", "lora", True),
        ("small", "lora", False),
    ]
    assert found[0].folder == f"{study_folder('a study')}/adapters/adapter"
    assert len(found[0].files) == 3
    assert stored_adapters(place, "a study", 9) == []
    assert stored_adapters(place, "never", 3) == []


def test_the_record_has_the_name_that_exports_give_it() -> None:
    assert _adapters._RECORD == RECORD


def test_what_is_no_export_is_left_out(place: ArtifactStore) -> None:
    root = "studies/s/adapters"
    for name, content in (
        ("no record/a", b""),
        ("text/autopeft.json", b"{"),
        ("list/autopeft.json", b"[1]"),
        ("large/autopeft.json", b" " * (2**20 + 1)),
        ("file", b""),
    ):
        place.put_named(f"{root}/{name}", content)
    assert stored_adapters(place, "s", 3) == []


def test_the_archive_holds_the_folder(place: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(place, tmp_path / "adapter", "s", 3)
    adapter = stored_adapters(place, "s", 3)[0]
    with zipfile.ZipFile(io.BytesIO(adapter_archive(place, adapter))) as archive:
        assert sorted(archive.namelist()) == [
            "adapter/adapter_model.safetensors",
            "adapter/autopeft.json",
            "adapter/labels/names.json",
        ]
        assert archive.read("adapter/adapter_model.safetensors") == b"weights" * 100
    monkeypatch.setattr(_adapters, "MAX_BYTES", 500)
    with pytest.raises(ArtifactError, match="more than"):
        adapter_archive(place, adapter)
