from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.cli import _app
from autopeft.cli._control import _stop_here, describe_search, resume_words
from autopeft.exceptions import MachineError, NotFoundError, UsageError
from autopeft.orchestrate import worker_id
from autopeft.service import ServiceState
from autopeft.store import SqlStore
from tests.cli.conftest import Cli, Save, _write_study
from tests.cli.remote import connect
from tests.export.studies import full_study
from tests.service.conftest import BOB, SETTINGS, client_of, drivers, open_service, settings, state  # noqa: F401


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when it is asked to."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        yield child
        child.kill()


def stored(path: Path) -> tuple[SqlStore, str]:
    store = SqlStore(path)
    _write_study(store, full_study())
    return store, full_study().spec.name


def test_the_process_that_drives_a_study_is_asked_to_end(
    cli: Cli, tmp_path: Path, driver: subprocess.Popen[bytes]
) -> None:
    store, name = stored(tmp_path / "a.db")
    # As a driver's seat names its process.
    store.acquire_driver(name, f"{worker_id(driver.pid)}#1", executor="local", lease_s=600)
    ran = cli("stop", name, "--db", str(tmp_path / "a.db"))
    assert ran.code == 0, ran.err
    assert driver.wait(30) == -signal.SIGTERM
    assert ran.out.strip() == f"Study {name} is stopped."
    again = cli("stop", name, "--db", str(tmp_path / "a.db"), "--format", "json")
    assert json.loads(again.out)["state"] == "STOPPED"
    assert "Nothing drives" in again.err
    store.close()


def test_a_driver_elsewhere_or_one_that_does_not_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, name = stored(tmp_path / "a.db")
    store.acquire_driver(name, "far:away:12:34", executor="local", lease_s=600)
    with pytest.raises(MachineError, match="far:away:12:34 on another machine"):
        _stop_here(store, name)
    store.release_driver(name, "far:away:12:34")
    store.acquire_driver(name, f"{worker_id()}#1", executor="local", lease_s=600)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    with pytest.raises(MachineError, match="has not within"):
        _stop_here(store, name, sleep=lambda _: None)
    assert killed == [(os.getpid(), signal.SIGTERM)]
    store.close()


def test_a_search_is_resumed_by_the_command_that_began_it(
    cli: Cli, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "autopeft search --task stdlib/topics --budget 1% --study s"
    study = full_study()
    db = save(replace(study, attributes={**study.attributes, "command": command}))
    ran: list[list[str]] = []

    def run(words: list[str], **_: object) -> int:
        ran.append(words)
        return 0

    own = _app.app
    monkeypatch.setattr(_app, "app", lambda words, **options: (own if words[0] == "resume" else run)(words, **options))
    done = cli("resume", study.spec.name, "--db", db)
    assert done.code == 0, done.err
    assert ran == [[*shlex.split(command)[1:], "--db", db]]
    assert f"Running: {command}" in done.err


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /",
        "autopeft db upgrade",
        "autopeft search --task x --trust-remote-code",
        "autopeft search --task x --allow-pickle",
        "autopeft search --config /tmp/any.yaml",
        "autopeft search --task x --objective os:system",
        "autopeft search --task x --objective=os:system",
        "autopeft search --task x --record file.py:f",
        "autopeft search --task x --server https://evil.example",
        "autopeft search --task x --server=https://evil.example",
        "autopeft search --task x --executor ray --address ray://evil.example:10001",
        "autopeft search --task x --artifacts s3://evil/x",
        "autopeft search --task 'x",
    ],
)
def test_a_stored_command_that_does_more_than_search_is_not_run(command: str) -> None:
    with pytest.raises(UsageError, match="type it if you trust it"):
        resume_words(command, "s")


def test_a_harmless_one_is_with_the_database_that_it_was_found_in() -> None:
    harmless = "autopeft search --task x --executor ray --address auto --artifacts /shared"
    assert resume_words(harmless, "s") == shlex.split(harmless)
    for place in ("--db b.db", "--db=b.db", "--db 'postgresql://evil/d?password_file=/home/me/.ssh/id_rsa'"):
        assert resume_words(f"autopeft search {place} --trials 3", "s") == ["autopeft", "search", "--trials", "3"]
    with pytest.raises(NotFoundError, match="does not know the command"):
        resume_words(None, "s")


def test_a_service_stops_and_resumes(
    cli: Cli,
    state: ServiceState,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = client_of(state).post("/v1/searches", json={"settings": SETTINGS}).json()["study"]
    connect(monkeypatch, state)
    stopped = cli("stop", study)
    assert (stopped.code, stopped.out) == (0, f"Study {study} is stopped.\n")
    resumed = cli("resume", "--format", "json")
    document = json.loads(resumed.out)
    assert (document["state"], document["queue_position"]) == ("QUEUED", 1)
    assert cli("resume", study).out == f"Study {study} is queued, number 1 in the queue.\n"
    assert cli("stop", "nothing").code == 5
    connect(monkeypatch, state, token=BOB)
    refused = cli("stop", study)
    assert refused.code == 2
    assert "only ada may" in refused.err


def test_nothing_submitted_is_said(
    cli: Cli,
    state: ServiceState,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(monkeypatch, state)
    ran = cli("stop")
    assert ran.code == 5
    assert "has no search yet" in ran.err


def test_a_search_in_a_sentence() -> None:
    assert describe_search({"study": "s", "state": "RUNNING"}) == "Study s is running."
    failed = {"study": "s", "state": "FAILED", "message": "no disk.", "queue_position": None}
    assert describe_search(failed) == "Study s is failed: no disk."
