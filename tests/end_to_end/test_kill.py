"""A search that is killed at random moments loses nothing that had finished."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

from tests.end_to_end.conftest import SEARCH, CommandLine

TRIALS = 10


def has_study(command: CommandLine) -> bool:
    database = command.folder / "home" / "autopeft.db"
    return database.exists() and bool(command.json("status", "--all")["studies"])


def finished(command: CommandLine) -> dict[int, tuple[str, object]]:
    trials = command.json("trials")["trials"]
    return {item["number"]: (item["fingerprint"], item["values"]) for item in trials if item["state"] == "COMPLETE"}


@pytest.mark.slow
def test_kill_dash_nine_at_random_moments_loses_nothing(command: CommandLine) -> None:
    args = (*SEARCH, "--trials", str(TRIALS), "--seeds", "2", "--confirm-top", "2", "--sampler", "random")
    rng = random.Random(time.time_ns())
    kills = 0
    kept: dict[int, tuple[str, object]] = {}
    for _ in range(12):
        process = command.popen(*args)
        try:
            process.wait(timeout=rng.uniform(5.0, 9.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:
            break
        if has_study(command):
            now = finished(command)
            assert kept.items() <= now.items(), "a finished trial changed or was lost"
            kept = now
    assert kills >= 2, "the search was too quick to be killed"
    command.run(*args)

    trials = command.json("trials")["trials"]
    assert {item["state"] for item in trials} == {"COMPLETE"}
    assert kept.items() <= finished(command).items()
    assert sum(item["kind"] == "search" for item in trials) == TRIALS
    assert [item["number"] for item in trials] == list(range(len(trials)))
    runs = [(item["kind"] == "confirmation", item["fingerprint"], item["seed"]) for item in trials]
    assert len(runs) == len(set(runs))


@pytest.mark.slow
def test_a_killed_search_ends_with_the_numbers_of_an_undisturbed_one(command: CommandLine) -> None:
    """Oracle: the same search, undisturbed, in another database."""
    args = (*SEARCH, "--trials", "4", "--confirm-top", "0", "--no-baselines")
    process = command.popen(*args, "--db", "killed.db")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=6.0)
    process.kill()
    process.communicate()
    command.run(*args, "--db", "killed.db")
    command.run(*args, "--db", "whole.db")
    numbers = [
        [(item["params"], item["values"]) for item in command.json("trials", "--db", name)["trials"]]
        for name in ("killed.db", "whole.db")
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 4


def test_ctrl_c_stops_cleanly_and_prints_the_command_to_resume(command: CommandLine) -> None:
    args = (*SEARCH, "--trials", "500", "--sampler", "random", "--no-baselines", "--confirm-top", "0")
    process = command.popen(*args)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if (
            (command.folder / "home" / "autopeft.db").exists()
            and command.json("status", "--all")["studies"]
            and finished(command)
        ):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "autopeft search --task reviews.csv" in err
    assert "Traceback" not in err
    states = {item["state"] for item in command.json("trials")["trials"]}
    assert "RUNNING" not in states
