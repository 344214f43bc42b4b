from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from autopeft.cli import _dashboard, main
from autopeft.store import open_store
from tests.ports import free_port
from tests.study.builders import make_spec


def test_it_listens_on_this_machine_with_errors_hidden_and_protection_on() -> None:
    words = _dashboard.command_line("127.0.0.1", 8501)
    assert "--server.address=127.0.0.1" in words
    assert "--client.showErrorDetails=none" in words
    assert "--server.enableXsrfProtection=true" in words
    assert _dashboard.dashboard_script().name == "app.py"


def test_without_streamlit_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_dashboard, "find_spec", lambda name: None)
    assert main(["dashboard"]) == 4
    assert "autopeft[dashboard]" in capsys.readouterr().err


def test_the_server_really_answers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    open_store(url).create_study(make_spec())
    port = free_port()
    environment = {**os.environ, "AUTOPEFT_DB": url, "HOME": str(tmp_path)}
    with subprocess.Popen(
        _dashboard.command_line("127.0.0.1", port),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            assert answer(f"http://127.0.0.1:{port}/_stcore/health") == "ok"
        finally:
            server.terminate()


def answer(url: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return response.read().decode()
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{url} did not answer within a minute")
