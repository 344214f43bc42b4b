"""Drivers as processes: real ones, that run a few lines of Python instead of a search."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autopeft.exceptions import MachineError
from autopeft.orchestrate import is_dead, local_pid, worker_id
from autopeft.service._drivers import DriverCommand, ProcessDrivers


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(DriverCommand):
    code: str = ""

    def words(self, settings: Path) -> list[str]:
        return [sys.executable, "-c", self.code, str(settings)]


Drivers = list[ProcessDrivers]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[str]]:
    processes: list[str] = []
    yield processes
    for item in processes:
        pid = local_pid(item)
        if pid is not None:
            os.kill(pid, 9)


def drivers(folder: Path, code: str) -> ProcessDrivers:
    return ProcessDrivers(folder, Scripted(database="sqlite:///x.db", code=code))


def ended(made: ProcessDrivers, process: str) -> int:
    for _ in range(600):
        code = made.exit_code("s", process)
        if code is not None:
            return code
        time.sleep(0.05)
    raise AssertionError("the driver does not end")


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


def test_the_command_of_a_search() -> None:
    command = DriverCommand(database="d", executor=("--executor", "workers"))
    words = command.words(Path("s.json"))
    assert words == [
        sys.executable, "-P", "-m", "autopeft.cli", "search", "--config", "s.json",
        "--log-format", "json", "--executor", "workers",
    ]  # fmt: skip


def test_tokens_stay_here_and_the_database_goes_by_the_environment() -> None:
    base = {
        "PATH": "p",
        "AUTOPEFT_API_TOKEN": "secret",
        "AUTOPEFT_API_TOKEN_FILE": "f",
        "AUTOPEFT_DATA_DIR": "callers",
        "AUTOPEFT_ARTIFACTS": "callers",
        "AUTOPEFT_SERVER": "http://localhost",
        "AUTOPEFT_LOG_FORMAT": "json",
        "RAY_AUTH_TOKEN_PATH": "r",
    }
    found = DriverCommand(database="postgresql://u:p@h/d").environment(base)
    assert found["AUTOPEFT_DB"] == "postgresql://u:p@h/d"
    assert found["RAY_AUTH_TOKEN_PATH"] == "r"
    assert {key for key in found if key.startswith("AUTOPEFT_")} == {"AUTOPEFT_DB"}
    assert DriverCommand(database="d", artifacts="s3://b").environment(base)["AUTOPEFT_ARTIFACTS"] == "s3://b"
    assert DriverCommand(database="d", data_dir=Path("own")).environment(base)["AUTOPEFT_DATA_DIR"] == "own"
    assert "postgresql" not in " ".join(DriverCommand(database="postgresql://u:p@h/d").words(Path("s")))


def test_a_driver_reads_its_settings_works_in_an_empty_folder_and_its_words_are_kept(
    tmp_path: Path, started: list[str]
) -> None:
    made = drivers(
        tmp_path,
        "import json, os, sys; print('hidden'); "
        "print(json.load(open(sys.argv[1]))['task'], os.listdir(), os.environ['AUTOPEFT_DB'], file=sys.stderr); "
        "print('error: no such thing', file=sys.stderr); sys.exit(2)",
    )
    started.append(made.start("s", {"task": "stdlib/topics"}))
    assert ended(made, started[0]) == 2
    text, behind = made.log("s", 0)
    assert text == "stdlib/topics [] sqlite:///x.db\nerror: no such thing\n"
    assert made.log("s", behind) == ("", behind)
    assert made.log("s", 10**9) == (text, behind)
    assert made.last_error("s") == "no such thing"
    assert (tmp_path / "s" / "settings.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "s" / "settings.json").read_text()) == {"task": "stdlib/topics"}


def test_records_are_read_as_what_they_say(tmp_path: Path, started: list[str]) -> None:
    lines = [
        json.dumps({"level": "info", "message": "trial 0 started"}),
        "Fatal Python error: Segmentation fault",
        json.dumps({"level": "error", "message": "error: study x was\nbegun otherwise:\n  - seed"}),
        '{"broken": ',
        "[1]",
    ]
    made = drivers(tmp_path, f"import sys; sys.stderr.write({chr(10).join(lines) + chr(10)!r}); sys.exit(2)")
    started.append(made.start("s", {}))
    assert ended(made, started[0]) == 2
    text, _ = made.log("s", 0)
    assert text.startswith("trial 0 started\nFatal Python error: Segmentation fault\nerror: study x was\n")
    assert text.endswith('{"broken": \n[1]\n')


def test_the_last_error_is_the_whole_sentence(tmp_path: Path, started: list[str]) -> None:
    lines = [json.dumps({"message": text}) for text in ("error: first", "error: study x was\nbegun otherwise")]
    made = drivers(tmp_path, f"import sys; sys.stderr.write({chr(10).join(lines) + chr(10)!r}); sys.exit(2)")
    started.append(made.start("s", {}))
    assert ended(made, started[0]) == 2
    assert made.last_error("s") == "study x was\nbegun otherwise"


def test_a_driver_outlives_its_service_and_is_found_again(tmp_path: Path, started: list[str]) -> None:
    code = "import pathlib, signal, sys, time; " + (
        "signal.signal(15, lambda *_: sys.exit(130)); pathlib.Path('up').touch(); time.sleep(600)"
    )
    first = drivers(tmp_path, code)
    process = first.start("s", {})
    started.append(process)
    wait_for(tmp_path / "s" / "work" / "up")
    assert first.exit_code("s", process) is None
    second = drivers(tmp_path, code)
    assert second.exit_code("s", process) is None
    second.stop(process, is_patient=True)
    assert ended(first, process) == 130
    # Nobody but its parent knows how a process ended.
    assert second.exit_code("s", process) == -1
    assert is_dead(process)
    second.stop(process, is_patient=False)


def test_one_that_does_not_listen_is_killed(tmp_path: Path, started: list[str]) -> None:
    made = drivers(
        tmp_path, "import pathlib, signal, time; signal.signal(15, 1); pathlib.Path('up').touch(); time.sleep(600)"
    )
    started.append(made.start("s", {}))
    wait_for(tmp_path / "s" / "work" / "up")
    made.stop(started[0], is_patient=True)
    time.sleep(0.2)
    assert made.exit_code("s", started[0]) is None
    made.stop(started[0], is_patient=False)
    assert ended(made, started[0]) == -9


def test_logs_come_in_whole_lines_and_of_the_latest_run(tmp_path: Path, started: list[str]) -> None:
    made = drivers(tmp_path, "import os, sys; sys.stderr.write('ü' * 40000 + '\\n' + 'half'); sys.exit()")
    for _ in range(2):
        started.append(made.start("s", {}))
        assert ended(made, started[-1]) == 0
    first, behind = made.log("s", 0)
    rest, _ = made.log("s", behind)
    assert (first + rest).rstrip("\n") == "ü" * 40000
    assert (tmp_path / "s" / "driver.log.1").exists()
    assert made.log("nothing", 0) == ("", 0)


@pytest.mark.parametrize("study", ["", "../x", "a/b", ".", "..", ".x"])
def test_no_study_leads_out_of_the_folder(tmp_path: Path, study: str) -> None:
    made = drivers(tmp_path / "own", "pass")
    with pytest.raises(MachineError, match="plain name"):
        made.start(study, {})
    with pytest.raises(MachineError, match="plain name"):
        made.log(study, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_driver_that_cannot_be_seen_lives_as_long_as_its_study_is_driven(tmp_path: Path) -> None:
    driven = {"s"}
    made = ProcessDrivers(tmp_path, DriverCommand(database="d"), is_driven=driven.__contains__)
    # As another container names its processes, or this machine before it was started again.
    elsewhere = "autopeft-api:0123456789ab:7:1795299066"
    assert made.exit_code("s", elsewhere) is None
    driven.clear()
    assert made.exit_code("s", elsewhere) == -1
    assert made.exit_code("s", worker_id()) is None
