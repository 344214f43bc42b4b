"""Weights that run code when they are unpickled: nothing of theirs runs unless the user says so."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from autopeft.backbones import describe_backbone, load_backbone
from autopeft.exceptions import BackboneError
from autopeft.service import ServiceState
from tests import tiny
from tests.cli.conftest import Cli, cli  # noqa: F401
from tests.service.conftest import client_of, drivers, open_service, settings, state  # noqa: F401


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self._path}'",)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "exploded"


@pytest.fixture
def folder(tmp_path: Path, mark: Path) -> Path:
    """A backbone whose only weights are such a pickle."""
    made = tiny.tiny_folder(tmp_path / "backbone", "bert")
    (made / "model.safetensors").unlink()
    (made / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    return made


def load(name: str, **options: Any) -> Any:
    return load_backbone(name, n_labels=2, dtype=torch.float32, **options)


def test_the_bomb_works(folder: Path, mark: Path) -> None:
    """Oracle: whoever unpickles the file sees the mark."""
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert mark.exists()


def test_without_permission_it_is_not_even_opened(folder: Path, mark: Path, cli: Cli) -> None:  # noqa: F811
    for use in (describe_backbone, load):
        with pytest.raises(BackboneError, match="--allow-pickle"):
            use(str(folder))
    ran = cli("plan", "--task", "stdlib/topics", "--backbone", str(folder), "--no-baselines")
    assert ran.code == 2
    assert "--allow-pickle" in ran.err
    assert not mark.exists()


def test_with_permission_it_is_still_read_as_tensors_alone(folder: Path, mark: Path) -> None:
    with pytest.raises(BackboneError):
        load(str(folder), allow_pickle=True)
    assert not mark.exists()


def test_a_file_that_calls_itself_safetensors_is_not_unpickled(tmp_path: Path, mark: Path) -> None:
    made = tiny.tiny_folder(tmp_path / "backbone", "bert")
    (made / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BackboneError):
        load(str(made))
    assert not mark.exists()


def test_no_service_takes_weights_or_names_a_folder(
    state: ServiceState,  # noqa: F811
    folder: Path,
    mark: Path,
) -> None:
    client = client_of(state)
    content = (folder / "pytorch_model.bin").read_bytes()
    for name in (
        "pytorch_model.bin",
        "model.pkl",
        "model.pt",
        "reviews.csv",
        "reviews.parquet",
        "space.yaml",
        "a.json",
    ):
        assert client.post("/v1/uploads", params={"name": name}, content=content).status_code == 422
    for given in ({"backbone": str(folder)}, {"backbone": "minilm", "allow_pickle": True}):
        answer = client.post("/v1/searches", json={"settings": {"task": "stdlib/topics", **given}})
        assert answer.status_code in (403, 422)
    assert client.get("/v1/uploads").json()["uploads"] == []
    assert not mark.exists()
