"""A tiny search through the real command line: a random two-layer backbone in a folder and a small CSV file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_folder

WORDS = {
    "good": ["great", "fine", "superb", "lovely", "warm"],
    "bad": ["awful", "dull", "poor", "boring", "cold"],
}


def write_reviews(path: Path, n: int = 240, seed: int = 0) -> Path:
    """Short texts whose words tell their label."""
    rng = random.Random(seed)
    lines = ["text,label"]
    for _ in range(n):
        label = rng.choice(sorted(WORDS))
        words = [
            rng.choice(WORDS[label]) if rng.random() < 0.6 else rng.choice(["it", "was", "a", "film"]) for _ in range(6)
        ]
        lines.append(f"{' '.join(words)} {rng.randrange(10**6)},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass(frozen=True)
class CommandLine:
    """Runs ``autopeft`` in a process of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("AUTOPEFT_")},
            "AUTOPEFT_HOME": str(self.folder / "home"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error",
        }

    def popen(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "autopeft.cli", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
        )

    def run(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        with self.popen(*args) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit {process.returncode}, not {code}\n{out}\n{err}"
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def json(self, *args: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.run(*args, "--format", "json").stdout)
        return loaded


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    tiny_folder(tmp_path / "backbone", "bert", n_layers=2)
    write_reviews(tmp_path / "reviews.csv")
    return CommandLine(tmp_path)


SEARCH = (
    "search",
    "--task",
    "reviews.csv",
    "--text-column",
    "text",
    "--label-column",
    "label",
    "--backbone",
    "backbone",
    "--budget",
    "5%",
    "--epochs",
    "1",
    "--train-examples",
    "96",
)
