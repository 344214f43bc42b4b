"""Files of checkpoints: whole or not there, under a cap, and never a reason for a trial to fail."""

from __future__ import annotations

import pytest
import torch

from autopeft.study import CurvePoint
from autopeft.training._checkpoint import Checkpoint
from autopeft.training._checkpoints import CheckpointFolder, n_tensor_bytes

CPU = torch.device("cpu")


def make(n: int = 1000, *, wall_time_s: float = 60.0) -> Checkpoint:
    values = torch.arange(n, dtype=torch.float32)
    return Checkpoint(
        step=3,
        curve=(CurvePoint(step=3, epoch=0.5, metrics={"accuracy": 1 / 3}, wall_time_s=wall_time_s, n_examples=7),),
        counters={"steps": 3, "wall_time_s": wall_time_s},
        peak_memory_bytes=None,
        tensors={"a": values, "index": torch.arange(3)},
        moments={"a": (values / 3, values / 7)},
        row_updates=[3, 1],
        modules=[{}, {"_score": None, "_n": 2}],
        dynamics={"pruned": ["x"], "importance": {"x": {"A": values}}},
    )


def assert_equal(got: Checkpoint | None, expected: Checkpoint) -> None:
    assert got is not None
    assert (got.step, got.curve, got.counters, got.row_updates, got.modules) == (
        expected.step, expected.curve, expected.counters, expected.row_updates, expected.modules,
    )  # fmt: skip
    assert got.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(got.tensors[name], value) for name, value in expected.tensors.items())
    assert all(torch.equal(mine, its) for mine, its in zip(got.moments["a"], expected.moments["a"], strict=True))
    assert torch.equal(got.dynamics["importance"]["x"]["A"], expected.dynamics["importance"]["x"]["A"])


def test_what_is_saved_is_loaded_by_another_process_and_removed(tmp_path):
    folder = CheckpointFolder(tmp_path / "new")
    assert folder.load("k", CPU) is None
    assert folder.save("k", make(), seconds=60)
    assert_equal(CheckpointFolder(tmp_path / "new").load("k", CPU), make())
    assert folder.load("other", CPU) is None
    folder.remove("k")
    folder.remove("k")
    assert folder.load("k", CPU) is None


def test_size_is_that_of_values_and_moments():
    assert n_tensor_bytes(make(1000)) == 3 * 4000 + 3 * 8


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "zeros"])
def test_damaged_file_is_a_warning_and_goes(tmp_path, caplog, damage):
    folder = CheckpointFolder(tmp_path)
    folder.save("k", make(), seconds=60)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
    changed = {"cut": data[:-100], "bit": data, "empty": b"", "zeros": bytes(len(data))}[damage]
    path.write_bytes(changed)
    assert folder.load("k", CPU) is None
    assert "is damaged" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_read_is_a_warning(tmp_path, caplog):
    (tmp_path / "k.checkpoint").mkdir()
    folder = CheckpointFolder(tmp_path)
    assert folder.load("k", CPU) is None
    assert "cannot be read" in caplog.text
    folder.remove("k")
    assert "cannot be removed" in caplog.text


def test_nothing_is_written_where_beginning_again_costs_less(tmp_path):
    folder = CheckpointFolder(tmp_path)
    assert not folder.save("k", make(), seconds=0.0)
    assert list(tmp_path.iterdir()) == []
    folder._rate = 1e3  # a slow disk: 12 s for the file
    assert not folder.save("k", make(), seconds=60)
    assert folder.save("k", make(), seconds=121)
    assert folder._rate != 1e3  # measured now


def test_nothing_is_read_where_beginning_again_costs_less(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save("k", make(wall_time_s=1.0), seconds=60)
    folder._rate = 1e3
    assert folder.load("k", CPU) is None
    folder._rate = 1e6
    assert folder.load("k", CPU) is not None


def test_the_least_recently_written_make_room(tmp_path):
    folder = CheckpointFolder(tmp_path, cap_bytes=50_000)
    for key in "abcde":
        assert folder.save(key, make(1000), seconds=1e9)
    kept = [key for key in "abcde" if folder.load(key, CPU) is not None]
    assert 1 <= len(kept) < 5
    assert kept == list("abcde")[-len(kept) :]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 50_000


def test_folder_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    folder = CheckpointFolder(tmp_path / "file" / "sub")
    assert not folder.save("k", make(), seconds=60)
    assert not folder.save("k", make(), seconds=60)
    assert caplog.text.count("begin again from here on") == 1
