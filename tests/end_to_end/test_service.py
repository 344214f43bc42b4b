"""A whole search through the service: real server, real client, real drivers; the server is killed in its middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from autopeft.orchestrate import local_pid
from autopeft.store import SqlStore, Submissions
from autopeft.study import TrialState
from tests.ports import free_port

TOKEN = "operator-0123456789abcdef"
SIZE = (
    "--train-examples",
    "100",
    "--epochs",
    "1",
    "--seeds",
    "1",
    "--confirm-top",
    "1",
    "--no-baselines",
    "--device",
    "cpu",
)

pytestmark = pytest.mark.slow


@dataclass
class World:
    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.home / "autopeft.db"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "AUTOPEFT_HOME": str(self.home), "AUTOPEFT_API_TOKEN": TOKEN}

    def serve(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "autopeft.cli", "serve", "--port", str(self.port), "--log-format", "json"]
        with (self.home / "serve.log").open("ab") as log:
            process = subprocess.Popen(words, env=self.environment, stderr=log)
        wait_until(lambda: self.answers() or process.poll() is not None)
        assert process.poll() is None, (self.home / "serve.log").read_text()
        return process

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def client(self, *words: str, wait: bool = True) -> Any:
        command = [sys.executable, "-m", "autopeft.cli", *words, "--server", self.url]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=self.environment, **pipes)
        if not wait:
            return process
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = tmp_path / "home"
    home.mkdir()
    yield World(home=home, port=free_port())
    # Drivers outlive a killed service on purpose.
    if (home / "autopeft.db").exists():
        with Submissions(home / "autopeft.db") as submissions:
            for item in submissions.find():
                pid = None if item.process is None else local_pid(item.process)
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)


def wait_until(is_so: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.2)


def finished(world: World, study: str) -> int:
    with SqlStore(world.database) as store:
        names = [item.name for item in store.list_studies()]
        return sum(item.state.is_finished for item in store.load_study(study).trials) if study in names else 0


def test_a_killed_service_loses_nothing_and_its_driver_is_found_again(world: World) -> None:
    """Oracle: the numbers of trials in the database, and the one driver process throughout."""
    first = world.serve()
    submitted = world.client(
        "search", "--task", "stdlib/topics", "--trials", "3", *SIZE, "--detach", "--format", "json"
    )
    assert submitted.returncode == 0, submitted.stderr
    study = json.loads(submitted.stdout)["study"]
    second = json.loads(
        world.client("search", "--task", "stdlib/topics", "--seed", "1", "--detach", "--format", "json").stdout
    )["study"]
    wait_until(lambda: finished(world, study) >= 1)
    with Submissions(world.database) as submissions:
        driver = submissions.load(study).process
    assert driver is not None
    pid = local_pid(driver)
    assert pid is not None
    # Held, so that it cannot end before the next service is there.
    os.kill(pid, signal.SIGSTOP)
    first.kill()
    first.wait()

    again = world.serve()
    try:
        with Submissions(world.database) as submissions:
            wait_until(lambda: local_pid(str(submissions.load(study).service)) == again.pid)
            assert (submissions.load(study).process, submissions.load(study).state.value) == (driver, "RUNNING")
        os.kill(pid, signal.SIGCONT)
        stopped = world.client("stop", second)
        assert stopped.stdout == f"Study {second} is stopped.\n", stopped.stderr
        followed = world.client("search", "--task", "stdlib/topics", "--trials", "3", *SIZE, "--format", "json")
        assert followed.returncode == 0, followed.stderr
        assert "[4/4]" in followed.stderr
        with Submissions(world.database) as submissions:
            # How a driver ended that was another service's child, nobody knows: a second one looked, and was done.
            assert submissions.load(study).attempts <= 1
        front = json.loads(followed.stdout)
        assert front["is_final"]
        with SqlStore(world.database) as store:
            trials = store.load_study(study).trials
        assert [item.state for item in trials] == [TrialState.COMPLETE] * 4
        assert json.loads(world.client("front", study, "--format", "json").stdout)["trials"] == front["trials"]
        metrics = httpx2.get(f"{world.url}/metrics", trust_env=False).text
        assert 'autopeft_trials{state="COMPLETE"} 4.0' in metrics
    finally:
        again.terminate()
        assert again.wait(60) in (0, -signal.SIGTERM)
    log = [json.loads(line) for line in (world.home / "serve.log").read_text().splitlines()]
    assert {item["study"] for item in log if item["logger"] == "autopeft.service._scheduler"} == {study}
    assert TOKEN not in (world.home / "serve.log").read_text()


def test_stopping_gives_the_trial_back_and_resuming_goes_on(world: World) -> None:
    service = world.serve()
    try:
        follower = world.client(
            "search", "--task", "stdlib/topics", "--trials", "2", "--study", "mine", *SIZE, wait=False
        )
        wait_until(lambda: finished(world, "mine") >= 1)
        stopped = world.client("stop", "mine", "--format", "json")
        assert json.loads(stopped.stdout)["state"] == "STOPPING"
        _, said = follower.communicate(timeout=120)
        assert follower.returncode == 130
        assert "autopeft resume mine" in said
        with SqlStore(world.database) as store:
            assert not any(item.state is TrialState.RUNNING for item in store.load_study("mine").trials)
        assert json.loads(world.client("resume", "mine", "--format", "json").stdout)["state"] in ("QUEUED", "RUNNING")
        wait_until(lambda: finished(world, "mine") == 3)
        document = httpx2.get(
            f"{world.url}/v1/searches/mine", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
        )
        wait_until(lambda: document.json()["state"] in ("RUNNING", "COMPLETE"))
    finally:
        service.terminate()
        service.wait(60)


def test_what_fails_in_the_driver_reaches_the_caller(world: World) -> None:
    service = world.serve()
    try:
        failed = world.client("search", "--task", "glue/rte", "--budget", "1%", *SIZE)
        assert failed.returncode == 1
        assert "--data-dir" in failed.stderr
        assert str(world.home) not in failed.stderr
        impossible = world.client("search", "--task", "stdlib/topics", "--budget", "3", *SIZE)
        assert impossible.returncode == 1
        assert "budget" in impossible.stderr
    finally:
        service.terminate()
        service.wait(60)
