"""A disk that is full: the caches are done without, the database ends the search with everything that had finished."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autopeft.cli import main
from autopeft.training import _runner
from tests.end_to_end.conftest import SEARCH, CommandLine

ARGS = (*SEARCH, "--no-baselines", "--confirm-top", "0", "--sampler", "random")

#: Runs the command line where no file may grow beyond so many bytes, which databases and caches meet as a full disk.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from autopeft.cli import main
sys.exit(main(sys.argv[2:]))
"""


def values(trials: list[dict[str, Any]]) -> list[tuple[str, object]]:
    return [(item["fingerprint"], item["values"]) for item in trials]


def test_a_full_disk_for_the_caches_is_one_warning_and_the_same_numbers(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the same search with room for its caches."""
    monkeypatch.chdir(command.folder)
    # Nothing is kept in memory, so hidden states need the disk.
    monkeypatch.setattr(_runner, "default_memory_cap", lambda _: 0)
    args = (*ARGS, "--trials", "4")
    assert main([*args, "--db", "roomy.db"]) == 0
    cache = command.folder / "autopeft-home" / "cache"
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert any(path.suffix == ".bin" for path in files), "no trial stores hidden states"
    for path in files:
        path.unlink()
    really_open = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "w" in mode and cache in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_open(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    capsys.readouterr()
    assert main([*args, "--db", "full.db"]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: cache")]
    assert "the disk is full. Free space or choose another folder with AUTOPEFT_HOME." in warning
    assert "The search goes on without stored hidden states" in warning
    found = []
    for name in ("roomy.db", "full.db"):
        assert main(["trials", "--db", name, "--format", "json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["trials"])
    assert {item["state"] for item in found[1]} == {"COMPLETE"}
    assert values(found[0]) == values(found[1])


def test_a_disk_that_fills_up_is_one_message_and_the_same_command_resumes(command: CommandLine) -> None:
    command.run(*ARGS, "--trials", "1")
    size = (command.folder / "home" / "autopeft.db").stat().st_size
    args = (*ARGS, "--trials", "6")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(2 * size), *args],
        capture_output=True,
        text=True,
        env=command.environment,
        cwd=command.folder,
        timeout=300,
    )
    assert done.returncode == 4, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert "autopeft.db cannot be written" in done.stderr
    assert "free some disk space, then run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    finished = [item for item in command.json("trials")["trials"] if item["state"] == "COMPLETE"]
    assert 1 < len(finished) < 6, "the disk was not full in the middle of the search"
    command.run(*args)
    trials = command.json("trials")["trials"]
    assert [item["state"] for item in trials] == ["COMPLETE"] * 6
    assert values(trials)[: len(finished)] == values(finished)
