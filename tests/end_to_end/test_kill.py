"""A search that is killed at random moments loses nothing that had finished."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest

from autopeft.exceptions import AutoPeftError
from autopeft.store import open_store
from tests.end_to_end.conftest import SEARCH, CommandLine

TRIALS = 10


def n_finished(command: CommandLine, database: str = "home/autopeft.db") -> int:
    """Trials that have ended so far; 0 while there is no study yet."""
    try:
        with open_store(command.folder / database, create=False) as store:
            studies = store.list_studies()
            return sum(item.state.is_finished for item in store.load_study(studies[0].name).trials) if studies else 0
    except AutoPeftError:
        return 0


def finished(command: CommandLine) -> dict[int, tuple[str, object]]:
    trials = command.json("trials")["trials"]
    return {item["number"]: (item["fingerprint"], item["values"]) for item in trials if item["state"] == "COMPLETE"}


def wait_for(process: subprocess.Popen[str], command: CommandLine, n: int, database: str = "home/autopeft.db") -> None:
    """Wait until n trials have ended, or the process has."""
    deadline = time.monotonic() + 120
    while process.poll() is None and n_finished(command, database) < n:
        assert time.monotonic() < deadline, f"{n} trials did not end within two minutes"
        time.sleep(0.02)


def test_kill_dash_nine_at_random_moments_loses_nothing(command: CommandLine) -> None:
    args = (*SEARCH, "--trials", str(TRIALS), "--seeds", "2", "--confirm-top", "2", "--sampler", "random")
    rng = random.Random(time.time_ns())
    kept: dict[int, tuple[str, object]] = {}
    for _ in range(4):
        with command.popen(*args) as process:
            # Half a trial later on average: between trials, inside one, or while one is written.
            wait_for(process, command, len(kept) + rng.randint(1, 5))
            time.sleep(rng.uniform(0, 0.2))
            assert process.poll() is None, "the search was too quick to be killed"
            process.send_signal(signal.SIGKILL)
            process.communicate()
        now = finished(command)
        assert kept.items() <= now.items(), "a finished trial changed or was lost"
        kept = now
    command.run(*args)

    trials = command.json("trials")["trials"]
    assert {item["state"] for item in trials} == {"COMPLETE"}
    assert kept.items() <= finished(command).items()
    assert sum(item["kind"] == "search" for item in trials) == TRIALS
    assert [item["number"] for item in trials] == list(range(len(trials)))
    runs = [(item["kind"] == "confirmation", item["fingerprint"], item["seed"]) for item in trials]
    assert len(runs) == len(set(runs))


def test_a_killed_search_ends_with_the_numbers_of_an_undisturbed_one(command: CommandLine) -> None:
    """Oracle: the same search, undisturbed, in another database."""
    args = (*SEARCH, "--trials", "6", "--confirm-top", "0", "--no-baselines")
    with command.popen(*args, "--db", "killed.db") as process:
        wait_for(process, command, 2, "killed.db")
        assert process.poll() is None, "the search was too quick to be killed"
        process.kill()
        process.communicate()
    command.run(*args, "--db", "killed.db")
    command.run(*args, "--db", "whole.db")
    numbers = [
        [(item["params"], item["values"]) for item in command.json("trials", "--db", name)["trials"]]
        for name in ("killed.db", "whole.db")
    ]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 6


def test_two_processes_share_a_study_and_no_trial_runs_twice(command: CommandLine) -> None:
    args = (*SEARCH, "--trials", str(TRIALS), "--seeds", "2", "--confirm-top", "2", "--sampler", "random")
    with command.popen(*args) as first, command.popen(*args) as second:
        first.communicate(timeout=240)
        second.communicate(timeout=240)
    assert (first.returncode, second.returncode) == (0, 0)
    trials = command.json("trials")["trials"]
    assert {item["state"] for item in trials} == {"COMPLETE"}
    assert sum(item["kind"] == "search" for item in trials) == TRIALS
    assert {item["attempts"] for item in trials} == {1}
    runs = [(item["kind"] == "confirmation", item["fingerprint"], item["seed"]) for item in trials]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_and_prints_the_command_to_resume(command: CommandLine, number: signal.Signals) -> None:
    args = (*SEARCH, "--trials", "500", "--sampler", "random", "--no-baselines", "--confirm-top", "0")
    with command.popen(*args) as process:
        wait_for(process, command, 1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "autopeft search --task reviews.csv" in err
    assert "Traceback" not in err
    assert "RUNNING" not in {item["state"] for item in command.json("trials")["trials"]}
