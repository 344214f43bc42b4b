"""Shared fixtures. No test needs a network; every test starts with a clean environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run side by side, and threads that wait for each other on shared cores are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AUTOPEFT_* setting of the developer's reaches a test, and nothing is written to their home folder."""
    for name in [name for name in os.environ if name.startswith("AUTOPEFT_") and name != "AUTOPEFT_TEST_GLUE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUTOPEFT_HOME", str(tmp_path / "autopeft-home"))
