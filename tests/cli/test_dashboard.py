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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.1", "::1", "[::1]"])
def test_on_this_machine_only_its_own_names_are_answered(host: str) -> None:
    words = _dashboard.command_line(host, 8501)
    assert [word for word in words if word.startswith("--server.allowedHosts=")]
    assert _dashboard.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.org"])
def test_elsewhere_it_starts_only_if_no_login_is_asked_for_and_says_who_can_read(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(_dashboard.subprocess, "call", lambda words, env: asked.append(words) or 0)
    assert main(["dashboard", "--host", host]) == 2
    refusal = capsys.readouterr().err
    assert "--no-login" in refusal
    assert "ssh -L 8501" in refusal
    assert asked == []
    assert main(["dashboard", "--host", host, "--no-login"]) == 0
    assert "no login" in capsys.readouterr().err
    assert f"--server.address={host}" in asked[0]
    assert not [word for word in asked[0] if word.startswith("--server.allowedHosts=")]
    assert "--server.enableXsrfProtection=true" in asked[0]
