from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.cli import _workers
from autopeft.exceptions import MachineError


def test_a_checkout_has_the_workers_beside_the_package() -> None:
    found = _workers.workers_module("settings")
    assert Path(found.__file__ or "").parent == Path(__file__).parents[2] / "workers"


def test_another_package_of_that_name_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "__file__", str(tmp_path / "autopeft" / "cli" / "_workers.py"))
    with pytest.raises(MachineError, match=r"workers' files are missing"):
        _workers.workers_module("settings")
    (tmp_path / "workers").mkdir()
    with pytest.raises(MachineError, match=r"workers' files are missing"):
        _workers.workers_module("settings")
