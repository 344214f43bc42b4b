from __future__ import annotations

import json
from pathlib import Path

import pytest

from autopeft.artifacts import ArtifactStore, fetch_bundle, put_bundle
from autopeft.artifacts import _bundle as module
from autopeft.exceptions import ArtifactError, NotFoundError, UsageError
from tests.artifacts.conftest import run_with_small_disk


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_text(name * 10)
    return {"RTE/train.tsv": source / "a", "RTE/dev.tsv": source / "b"}


def test_a_bundle_comes_back_whole(store: ArtifactStore, files: dict[str, Path], tmp_path: Path) -> None:
    bundle = put_bundle(store, files)
    assert bundle.size == 20
    folder = fetch_bundle(store, bundle.manifest, tmp_path / "cache")
    found = {str(item.relative_to(folder)): item.read_text() for item in folder.rglob("*") if item.is_file()}
    assert found == {"RTE/train.tsv": "a" * 10, "RTE/dev.tsv": "b" * 10}
    assert [item.name for item in (tmp_path / "cache").iterdir()] == [folder.name]


def test_equal_files_make_an_equal_bundle_in_any_order(store: ArtifactStore, files: dict[str, Path]) -> None:
    assert put_bundle(store, files) == put_bundle(store, dict(reversed(files.items())))


def test_what_is_there_is_not_fetched_again(
    folder_store: ArtifactStore, files: dict[str, Path], tmp_path: Path
) -> None:
    bundle = put_bundle(folder_store, files)
    folder = fetch_bundle(folder_store, bundle.manifest, tmp_path / "cache")
    for item in (tmp_path / "artifacts").rglob("*"):
        if item.is_file():
            item.unlink()
    assert fetch_bundle(folder_store, bundle.manifest, tmp_path / "cache") == folder


def test_a_missing_or_damaged_file_leaves_no_folder(
    folder_store: ArtifactStore, files: dict[str, Path], tmp_path: Path
) -> None:
    bundle = put_bundle(folder_store, files)
    one = bundle.files["RTE/train.tsv"].sha256
    path = tmp_path / "artifacts" / "sha256" / one[:2] / one
    path.write_text("c" * 10)
    with pytest.raises(ArtifactError, match="damaged"):
        fetch_bundle(folder_store, bundle.manifest, tmp_path / "cache")
    path.unlink()
    with pytest.raises(NotFoundError):
        fetch_bundle(folder_store, bundle.manifest, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/cron.d/evil", "a/../../evil", "C:\\evil"])
def test_a_list_cannot_lead_out_of_the_folder(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    content = store.put(b"evil")
    listing = {"version": 1, "files": [{"name": name, "sha256": content.sha256, "size": 4}]}
    manifest = store.put(json.dumps(listing).encode())
    with pytest.raises(ArtifactError, match="no list of files that can be read"):
        fetch_bundle(store, manifest, tmp_path / "inner" / "cache")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "files": [1]}',
        '{"version": 1, "files": []}',
        "[" * 100_000,
        '{"version": 1, "files": [{}]}',
    ],
)
def test_a_list_that_is_none_is_refused(store: ArtifactStore, tmp_path: Path, text: str) -> None:
    with pytest.raises(ArtifactError, match="no list of files that can be read"):
        fetch_bundle(store, store.put(text.encode()), tmp_path / "cache")


def test_a_bundle_is_bounded(
    store: ArtifactStore, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="1 to 10,000 files, but got 0"):
        put_bundle(store, {})
    bundle = put_bundle(store, files)
    monkeypatch.setattr(module, "_MAX_MANIFEST_BYTES", 10)
    with pytest.raises(ArtifactError, match="10 are allowed"):
        fetch_bundle(store, bundle.manifest, tmp_path / "cache")


def test_a_bundle_that_does_not_fit_is_told_before_it_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    code = f"""
from pathlib import Path
from autopeft.artifacts import fetch_bundle, open_artifacts, put_bundle
folder = Path({str(tmp_path)!r})
(folder / "big").write_bytes(b"x" * 200_000)
store = open_artifacts(folder / "artifacts")
bundle = put_bundle(store, {{"big": folder / "big"}})
try:
    fetch_bundle(store, bundle.manifest, folder / "small" / "cache")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run_with_small_disk(tmp_path / "small", code, options="size=64k")
    assert "ArtifactError cannot write 200,000 bytes" in done.stdout, done.stderr
    assert "choose another folder with AUTOPEFT_HOME" in done.stdout
