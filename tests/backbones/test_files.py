import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from autopeft.backbones._files import check_weight_names, content_hash, file_sha256, tensor_names, weight_files
from autopeft.exceptions import BackboneError

TENSORS = {"a.weight": torch.arange(4.0), "b.weight": torch.ones(2, 2)}


@pytest.fixture
def safetensors(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    return path


def _index(folder: Path, name: str, weight_map: object) -> None:
    (folder / name).write_text(json.dumps({"weight_map": weight_map}))


def test_a_single_file_and_its_tensors(safetensors: Path) -> None:
    files = weight_files("x", safetensors.parent, allow_pickle=False)
    assert files == [safetensors]
    assert tensor_names("x", files) == set(TENSORS)


def test_shards_come_in_a_stable_order(tmp_path: Path) -> None:
    for index, (key, value) in enumerate(TENSORS.items()):
        save_file({key: value}, tmp_path / f"model-{index}.safetensors")
    weight_map = {"b.weight": "model-1.safetensors", "a.weight": "model-0.safetensors"}
    _index(tmp_path, "model.safetensors.index.json", weight_map)
    files = weight_files("x", tmp_path, allow_pickle=False)
    assert [path.name for path in files] == ["model-0.safetensors", "model-1.safetensors"]
    assert tensor_names("x", files) == set(TENSORS)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    _index(tmp_path, "model.safetensors.index.json", {"a": "model-0.safetensors"})
    with pytest.raises(BackboneError, match=r"names files that are missing: model-0.safetensors"):
        weight_files("x", tmp_path, allow_pickle=False)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BackboneError, match="is not an index of weights"):
        weight_files("x", tmp_path, allow_pickle=False)


def test_safetensors_are_preferred_to_pickles(safetensors: Path) -> None:
    torch.save(TENSORS, safetensors.parent / "pytorch_model.bin")
    assert weight_files("x", safetensors.parent, allow_pickle=True) == [safetensors]


def test_no_weights_at_all() -> None:
    with pytest.raises(BackboneError, match=r"x: there are no weights; expected model.safetensors"):
        check_weight_names("x", frozenset({"config.json", "tf_model.h5"}), allow_pickle=True)


def test_pickled_weights_need_permission(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"pickled \(pytorch_model.bin\).*--allow-pickle"):
        weight_files("x", tmp_path, allow_pickle=False)
    assert tensor_names("x", weight_files("x", tmp_path, allow_pickle=True)) == set(TENSORS)


class _Harmful:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> object:
        return Path.touch, (self.victim,)


def test_a_harmful_pickle_is_not_run_even_with_permission(tmp_path: Path) -> None:
    path, victim = tmp_path / "pytorch_model.bin", tmp_path / "victim"
    path.write_bytes(pickle.dumps({"a": _Harmful(victim)}, protocol=2))
    with pytest.raises(BackboneError, match=r"holds more than weights|damaged"):
        tensor_names("x", [path])
    assert not victim.exists()


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_an_error(cut: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_file(TENSORS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(BackboneError, match=r"model.safetensors is damaged or incomplete"):
        tensor_names("x", [path])


def test_hashes_by_their_definition(safetensors: Path) -> None:
    config = safetensors.parent / "config.json"
    config.write_bytes(b"{}")
    digest = hashlib.sha256(safetensors.read_bytes()).hexdigest()
    assert file_sha256(safetensors) == digest
    assert content_hash(config, [digest]) == hashlib.sha256(b"{}" + digest.encode()).hexdigest()
