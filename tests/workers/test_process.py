"""Whatever an engine does to itself, its supervisor is told why, and nothing of it stays behind."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers import process
from workers.messages import EngineSettings
from workers.process import EngineLostError, EngineProcess


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setattr(process, "ENGINE", "tests.workers.stub_engine")
    started: list[EngineProcess] = []

    def make(**options: Any) -> EngineProcess:
        engine = EngineProcess(EngineSettings(cache_dir=tmp_path), **options)
        started.append(engine)
        return engine

    yield make
    for engine in started:
        engine.kill()


def lost(engine: EngineProcess, *, within_s: float = 60) -> Any:
    deadline = time.monotonic() + within_s
    try:
        while time.monotonic() < deadline:
            engine.receive()
    except EngineLostError as error:
        return error.failure
    raise AssertionError("the engine is still there")


def test_it_starts_says_what_it_has_and_answers(start: Any) -> None:
    engine = start()
    assert engine.devices == {"device": "stub", "pid": engine.pid}
    engine.send("hello")
    assert engine.receive(30) == "hello"
    assert engine.receive(0) is None
    assert engine.is_alive


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("segfault", r"crashed: signal 11 \(SIGSEGV\)\."),
        ("killed", r"crashed: signal 9 \(SIGKILL\), as the kernel sends it when memory runs out; the engine held"),
        ("exit", r"crashed: its engine ended with exit code 3\."),
    ],
)
def test_a_crash_is_named(start: Any, word: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    engine = start()
    engine.send(word)
    failure = lost(engine)
    assert failure.reason == "crashed"
    assert re.match(message, failure.message)
    assert not engine.is_alive
    if word == "segfault":
        assert "about to fall" in (failure.traceback or "")
        assert "about to fall" in capfd.readouterr().err


def test_a_hang_is_ended(start: Any) -> None:
    engine = start(silence_s=1.0)
    engine.send("hang")
    failure = lost(engine)
    assert (failure.reason, failure.message) == ("hung", "hung: no sign for 1 s (--trial-timeout).")
    assert not psutil.pid_exists(engine.pid)


def test_one_that_eats_memory_is_ended_before_the_machine_is(start: Any) -> None:
    limit = 200 * 2**20
    engine = start(memory_limit_bytes=limit)
    engine.send("eat")
    failure = lost(engine)
    assert failure.reason == "out_of_memory"
    assert "over the limit of 0.20 GiB (--memory-limit)" in failure.message
    assert not engine.is_alive


def test_what_a_trial_started_ends_with_its_engine(start: Any) -> None:
    engine = start()
    engine.send("child")
    child = psutil.Process(engine.receive(30))
    engine.kill()
    child.wait(timeout=10)
    engine.kill()  # a second time is harmless


def test_a_message_to_an_engine_that_is_gone_tells_why(start: Any) -> None:
    engine = start()
    engine.send("exit")
    while engine.is_alive:
        time.sleep(0.01)
    with pytest.raises(EngineLostError, match="exit code 3"):
        engine.send("hello")


def test_an_engine_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from workers import process; from workers.messages import "
        "EngineSettings; process.ENGINE = 'tests.workers.stub_engine'; "
        "engine = process.EngineProcess(EngineSettings(cache_dir=Path('.'))); engine.send('hang'); "
        "print(engine.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        engine = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
        supervisor.wait()
        gone, _ = psutil.wait_procs([engine], timeout=20)
        assert gone
