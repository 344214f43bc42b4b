"""A search whose trials other processes run ends with the numbers of one that runs them itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from autopeft.exceptions import AutoPeftError
from autopeft.store import open_store
from autopeft.study import Trial, TrialState
from tests.end_to_end.conftest import SEARCH, CommandLine

ARGS = (*SEARCH, "--sampler", "random", "--precision", "float32")


def trials_of(command: CommandLine, database: str) -> tuple[Trial, ...]:
    try:
        with open_store(command.folder / database, create=False) as store:
            studies = store.list_studies()
            return store.load_study(studies[0].name).trials if studies else ()
    except AutoPeftError:
        return ()


def wait_until(condition: Any, what: str, *processes: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        for process in processes:
            assert process.poll() is None, f"a process ended: {process.communicate()}"
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


@contextmanager
def workers(command: CommandLine, database: str, n: int, *flags: str) -> Iterator[list[subprocess.Popen[str]]]:
    started = [command.popen("worker", "--db", database, "--idle-timeout", "120s", *flags) for _ in range(n)]
    try:
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            process.communicate(timeout=60)


def numbers(command: CommandLine, database: str) -> dict[tuple[str, str, int], object]:
    found = command.json("trials", "--db", database)["trials"]
    assert {item["state"] for item in found} == {"COMPLETE"}
    return {(item["kind"], item["fingerprint"], item["seed"]): item["values"] for item in found}


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_give_the_numbers_of_a_local_search(command: CommandLine) -> None:
    """Oracle: the same search with the local executor in another database."""
    args = (*ARGS, "--trials", "8", "--no-baselines", "--seeds", "2", "--confirm-top", "2")
    with workers(command, "remote.db", 2) as started:
        with command.popen(*args, "--db", "remote.db", "--executor", "workers") as search:
            pids = {process.pid: process for process in started}

            def held() -> int | None:
                for item in trials_of(command, "remote.db"):
                    if item.state is TrialState.RUNNING and item.number >= 2 and item.worker is not None:
                        return int(item.worker.rsplit(":", 2)[1])
                return None

            pid = wait_until(held, "a trial that runs", search)
            os.kill(pid, signal.SIGKILL)
            assert pid in pids
            _, err = search.communicate(timeout=280)
        assert search.returncode == 0, err
        assert "Traceback" not in err
        (left,) = [process for process in started if process.pid != pid]
        assert left.poll() is None
        left.terminate()
        left.communicate(timeout=60)
        assert left.returncode == 0
    command.run(*args, "--db", "local.db")
    remote, local = numbers(command, "remote.db"), numbers(command, "local.db")
    assert sum(kind == "search" for kind, *_ in remote) == 8
    assert remote == local
    with open_store(command.folder / "remote.db") as store:
        # What was killed could not say goodbye; it is listed until its lease ends.
        assert {item.facts.pid for item in store.workers()} <= {pid}
        assert store.drivers() == []


CRASHING = """
import ctypes, os, signal, time
from autopeft.rewards import reward

hoard = []

@reward(direction="minimize")
def trap(candidate):
    # Each of the first three candidates that come by does something else.
    path = os.environ["TRAP_FOLDER"]
    for number, act in enumerate((segfault, hang, eat)):
        try:
            os.close(os.open(f"{path}/{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        act()
    return 1.0

def segfault():
    ctypes.string_at(0)

def hang():
    time.sleep(3600)

def eat():
    while True:
        hoard.append(bytearray(b"x" * 2**25))
        time.sleep(0.02)
"""


@pytest.mark.slow
def test_trials_that_crash_hang_or_eat_memory_fail_with_the_reason_and_the_search_goes_on(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command.folder / "traps").mkdir()
    monkeypatch.setenv("TRAP_FOLDER", str(command.folder / "traps"))
    (command.folder / "mine.py").write_text(CRASHING)
    # The driver tries each reward on an untrained candidate first, which must step into no trap.
    for number in range(3):
        (command.folder / "traps" / str(number)).touch()
    args = (*ARGS, "--trials", "6", "--no-baselines", "--confirm-top", "0", "--record", "mine.py:trap")
    flags = ("--allow-code", "--trial-timeout", "12s", "--memory-limit", "1500M")
    with command.popen(*args, "--executor", "workers") as search:
        wait_until(lambda: trials_of(command, "home/autopeft.db"), "the first trial", search)
        for path in (command.folder / "traps").iterdir():
            path.unlink()
        with workers(command, "home/autopeft.db", 1, *flags):
            _, err = search.communicate(timeout=280)
    assert search.returncode == 0, err
    failures = [item.failure for item in trials_of(command, "home/autopeft.db")]
    reasons = [item.reason for item in failures if item is not None]
    assert sorted(reasons) == ["crashed", "hung", "out_of_memory"]
    words = " ".join(item.message for item in failures if item is not None)
    assert "crashed: signal 11 (SIGSEGV)" in words
    assert "hung: no sign for 12 s" in words
    assert "over the limit of 1.46 GiB" in words
    crash = next(item for item in failures if item is not None and item.reason == "crashed")
    assert "string_at" in (crash.traceback or ""), "the interpreter's own report of the crash is kept"
    assert len(failures) == 6
    assert [item is None for item in failures].count(True) == 3


HARMLESS = """
from autopeft.rewards import reward

@reward(direction="minimize")
def trap(candidate):
    return 1.0
"""


@pytest.mark.slow
def test_a_worker_without_permission_refuses_code_and_the_search_says_so(command: CommandLine) -> None:
    (command.folder / "mine.py").write_text(HARMLESS)
    args = (*ARGS, "--trials", "1", "--no-baselines", "--confirm-top", "0", "--record", "mine.py:trap")
    with workers(command, "home/autopeft.db", 1), command.popen(*args, "--executor", "workers") as search:
        lines = []
        assert search.stderr is not None
        for line in search.stderr:
            lines.append(line)
            if "refuse study" in line:
                break
        search.terminate()
        search.communicate(timeout=60)
    assert "it needs the reward function mine.py:trap, and this worker runs no code that a study names" in lines[-1]
