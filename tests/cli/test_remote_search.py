"""`autopeft search --server` against a service in this process, whose drivers do what the test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from autopeft.cli._client import ServiceClient
from autopeft.cli._output import OutputFormat
from autopeft.cli._remote_search import search_remotely
from autopeft.cli._source import open_client
from autopeft.exceptions import AutoPeftError, ServiceError, UsageError
from autopeft.service import ServiceState
from autopeft.store import SubmissionState
from tests.cli.conftest import Cli, _write_study
from tests.cli.remote import URL, connect
from tests.export.studies import full_study
from tests.service.conftest import FakeDrivers, drivers, open_service, settings, state  # noqa: F401
from tests.service.test_uploads import CSV

Run = Callable[..., None]


@pytest.fixture
def run(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> Run:  # noqa: F811
    """Search remotely; between two looks, the next step of the test is done."""
    connect(monkeypatch, state)

    def search(
        flags: dict[str, Any], *steps: Callable[[], None], base: dict[str, Any] | None = None, **options: Any
    ) -> None:
        left = list(steps)

        def sleep(_: float) -> None:
            left.pop(0)()

        given = {"is_detached": False, "is_quiet": False, "format": OutputFormat.JSON, **options}
        with open_client(URL, None, None) as client:
            search_remotely(client, base or {}, flags, sleep=sleep, **given)
        assert left == []

    return search


def start(state: ServiceState) -> str:  # noqa: F811
    item = state.submissions.start_next("svc")
    assert item is not None
    return item.study


NAME = full_study().spec.name
FLAGS = {"task": "stdlib/topics", "study": NAME, "trials": 3, "seed": None, "objectives": []}


def test_it_submits_follows_and_shows_the_front(
    run: Run,
    state: ServiceState,  # noqa: F811
    drivers: FakeDrivers,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    def begin() -> None:
        start(state)
        drivers.logs[NAME] = "Study begins\ntrial 0 started\n"

    def go_on() -> None:
        drivers.logs[NAME] += "trial 0: accuracy 0.6\n"
        _write_study(state.store, full_study())
        state.submissions.finish(NAME, "svc", SubmissionState.COMPLETE)

    run(FLAGS, begin, go_on, base={"budget": "2%", "trials": 99})
    said = capsys.readouterr()
    assert json.loads(said.out)["study"] == NAME
    assert said.err.splitlines() == [
        f"Submitted to {URL}. Study {NAME} is queued, number 1 in the queue.",
        "Study begins",
        "trial 0 started",
        "trial 0: accuracy 0.6",
    ]
    assert state.submissions.load(NAME).settings == {
        "task": "stdlib/topics", "study": NAME, "trials": 3, "budget": "2%",
    }  # fmt: skip


def test_ctrl_c_leaves_it_running_and_says_how_to_stop_it(
    run: Run,
    state: ServiceState,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        run(FLAGS, lambda: start(state) and None, interrupt)
    assert caught.value.exit_code == 130
    assert state.submissions.load(NAME).state is SubmissionState.RUNNING
    assert f"autopeft stop {NAME} --server {URL}" in capsys.readouterr().err


def test_the_same_command_follows_it_again(
    run: Run,
    state: ServiceState,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(FLAGS, is_detached=True)
    assert json.loads(capsys.readouterr().out)["state"] == "QUEUED"
    start(state)

    def finish() -> None:
        _write_study(state.store, full_study())
        state.submissions.finish(NAME, "svc", SubmissionState.COMPLETE)

    run(FLAGS, finish)
    assert json.loads(capsys.readouterr().out)["study"] == NAME
    assert len(state.submissions.find()) == 1


def test_a_failed_search_fails_with_its_reason_and_a_stopped_one_says_how_to_go_on(
    run: Run,
    state: ServiceState,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    def end(how: SubmissionState, why: str | None) -> Callable[[], None]:
        def step() -> None:
            start(state)
            state.submissions.finish(NAME, "svc", how, why)

        return step

    with pytest.raises(AutoPeftError, match=r"failed at .*: no feasible configuration"):
        run(FLAGS, end(SubmissionState.FAILED, "no feasible configuration"))
    with pytest.raises(typer.Exit) as caught:
        run(FLAGS, end(SubmissionState.STOPPED, None))
    assert caught.value.exit_code == 130
    assert f"autopeft resume {NAME} --server {URL}" in capsys.readouterr().err


def test_a_service_that_is_away_is_asked_again(
    run: Run,
    state: ServiceState,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fine = ServiceClient.get

    def away() -> None:
        def fail(*_: object, **__: object) -> None:
            raise ServiceError("it cannot be reached;")

        start(state)
        monkeypatch.setattr(ServiceClient, "get", fail)

    def back() -> None:
        monkeypatch.setattr(ServiceClient, "get", fine)
        _write_study(state.store, full_study())
        state.submissions.finish(NAME, "svc", SubmissionState.COMPLETE)

    run(FLAGS, away, lambda: None, back)
    assert capsys.readouterr().err.count("Asking again") == 1


def test_files_are_uploaded_and_named_as_the_service_does(
    run: Run,
    state: ServiceState,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "reviews.csv").write_bytes(CSV)
    space = tmp_path / "mine.yaml"
    space.write_text((Path(__file__).parents[2] / "search_spaces" / "autopeft.yaml").read_text())
    flags = {**FLAGS, "task": str(tmp_path / "reviews.csv"), "space": None}
    run(flags, base={"space": str(space)}, is_detached=True, is_quiet=True)
    found = state.submissions.load(NAME).settings
    assert found["task"].endswith("/reviews.csv")
    assert found["space"].endswith("/mine.yaml")
    assert state.uploads.find("ada", found["task"]).path.read_bytes() == CSV
    with pytest.raises(UsageError, match="cannot be read"):
        run({**FLAGS, "task": str(tmp_path / "missing.csv")})


def test_a_folder_of_this_machine_is_refused_unless_the_environment_names_it(
    run: Run,
    state: ServiceState,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="--data-dir"):
        run({**FLAGS, "data_dir": tmp_path})
    with pytest.raises(UsageError, match="--data-dir"):
        run(FLAGS, base={"data-dir": "x"})
    monkeypatch.setenv("AUTOPEFT_DATA_DIR", str(tmp_path))
    run({**FLAGS, "data_dir": tmp_path}, is_detached=True)
    assert "data_dir" not in state.submissions.load(NAME).settings


def test_the_command_itself(
    cli: Cli,
    state: ServiceState,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    connect(monkeypatch, state)
    (tmp_path / "search.yaml").write_text("task: stdlib/topics\ntrials: 5\n")
    ran = cli("search", "--config", str(tmp_path / "search.yaml"), "--trials", "6", "--detach", "--format", "json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["settings"]["trials"] == 6
    refused = cli("search", "--task", "stdlib/topics", "--trust-remote-code", "--detach")
    assert refused.code == 2
    assert "--allow-code" in refused.err
    monkeypatch.delenv("AUTOPEFT_SERVER")
    assert "--detach goes with --server" in cli("search", "--task", "x", "--detach").err
