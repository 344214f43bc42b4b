"""From a search to an adapter that a stranger's process loads, through the real command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import SEARCH, CommandLine


@pytest.mark.slow
def test_the_best_trial_is_exported_and_its_card_runs(command: CommandLine) -> None:
    command.run(*SEARCH, "--trials", "2", "--confirm-top", "1", "--seeds", "2", "--sampler", "random", "-q")
    document = command.json("export", "-o", "adapter")
    folder = command.folder / "adapter"
    assert document["verified"] is True
    assert json.loads((folder / "autopeft.json").read_text())["verified"] is True
    best = command.json("show")["trial"]
    assert document["trial"] == best["number"]
    snippet = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert snippet is not None
    environment = {**command.environment, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", snippet[1]], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("good", "bad")
