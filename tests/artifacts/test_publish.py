from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.artifacts import ArtifactStore, publish
from autopeft.exceptions import UsageError


def test_a_folder_is_published_with_all_that_is_in_it(store: ArtifactStore, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    (adapter / "inner").mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "inner" / "weights").write_bytes(b"123")
    names = publish(store, "rte 1% <x>", "adapters", adapter)
    assert names == [
        "studies/rte_1_x_-d8a0a6c8/adapters/adapter/adapter_config.json",
        "studies/rte_1_x_-d8a0a6c8/adapters/adapter/inner/weights",
    ]
    assert store.read_named(names[1]) == b"123"
    assert store.list_named("studies") == names


def test_a_file_is_published_again_under_its_name(store: ArtifactStore, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    for text in ("one", "two"):
        report.write_text(text)
        assert publish(store, "s", "reports", report) == ["studies/s/reports/report.html"]
    assert store.read_named("studies/s/reports/report.html") == b"two"


def test_a_study_cannot_name_another_place(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (name,) = publish(store, "../../../etc", "reports", tmp_path / "x")
    assert name == "studies/_.._.._etc-1a6fbe82/reports/x"


def test_links_are_not_followed_and_nothing_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="but it holds 0"):
        publish(store, "s", "adapters", folder)
